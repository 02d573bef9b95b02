"""`mirror repo create|update|delete|fork`: writes that pass through to the upstream."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from mirror.cli.main import configured, json_option, leave
from mirror.config import Config
from mirror.errors import ConfigError
from mirror.model import FORK_POLICIES, Repository, RepositorySettings
from mirror.operations import built_in_sandbox
from mirror.queries.caller import OPERATOR
from mirror.queries.repositories import repository_named
from mirror.store.files import open_reader
from mirror.write import PassThrough

BY = "the command line"

_SETTINGS = (
    click.option("--private/--public", "is_private", default=None, help="Who sees it."),
    click.option("--description", metavar="TEXT", help="What it is for."),
    click.option("--website", metavar="URL", help="Its address elsewhere."),
    click.option("--language", metavar="NAME", help="The programming language, as python."),
    click.option("--issues/--no-issues", "has_issues", default=None, help="An issue tracker."),
    click.option("--wiki/--no-wiki", "has_wiki", default=None, help="A wiki."),
    click.option("--fork-policy", type=click.Choice(FORK_POLICIES), help="Who may fork it."),
)

upstream_option: Callable[[Any], Any] = click.option(
    "--upstream", default="", metavar="NAME", help="Which one, where several hold the name."
)


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of what a repository is like; without one, the upstream decides or leaves it."""
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


@click.group()
def repo() -> None:
    """Create, change, delete and fork repositories: upstream first, and in the mirror at once.

    \b
    Example:
        mirror repo create jespern/new-idea --private
    """


@repo.command()
@click.argument("name", metavar="OWNER/SLUG")
@click.option("--name", "title", metavar="TEXT", help="Its name for people; the slug, if omitted.")
@click.option("--scm", type=click.Choice(["git", "hg"]), help="As the owner's newest one, if omitted.")
@settings_options
@upstream_option
@json_option
@click.pass_context
def create(
    ctx: click.Context, /, name: str, title: str | None, upstream: str, as_json: bool, **settings: Any
) -> None:
    """Create a repository.

    \b
    Example:
        mirror repo create jespern/new-idea --private --scm git --description "A new idea"
    """
    owner, slug = _parts(name)
    wanted = RepositorySettings(name=title or slug, **settings)
    with _writing(ctx) as (config, writes):
        made = writes.create(owner, wanted, slug=slug, by=BY, upstream=upstream)
        _tell(config, "created", made, as_json=as_json)


@repo.command()
@click.argument("name", metavar="OWNER/SLUG")
@click.option("--name", "title", metavar="TEXT", help="A new name; the slug follows it.")
@settings_options
@upstream_option
@json_option
@click.pass_context
def update(
    ctx: click.Context, /, name: str, title: str | None, upstream: str, as_json: bool, **settings: Any
) -> None:
    """Change a repository; what is not mentioned stays.

    \b
    Example:
        mirror repo update jespern/new-idea --name "Old idea" --public
    """
    _parts(name)
    wanted = RepositorySettings(name=title, **settings)
    if not wanted.given():
        raise ConfigError("nothing to change: name a setting, as --description TEXT; see --help")
    with _writing(ctx) as (config, writes):
        made = writes.update(name, wanted, by=BY, upstream=upstream)
        _tell(config, "updated", made, as_json=as_json)


@repo.command()
@click.argument("name", metavar="OWNER/SLUG")
@click.option("--yes", is_flag=True, help="Do not ask.")
@upstream_option
@json_option
@click.pass_context
def delete(ctx: click.Context, name: str, yes: bool, upstream: str, as_json: bool) -> None:
    """Delete a repository for good; the mirror keeps its row and refs, marked as gone.

    \b
    Example:
        mirror repo delete jespern/old-idea
    """
    _parts(name)
    if not yes and not sys.stdin.isatty():
        raise ConfigError(f"nobody is here to confirm that {name} is to be deleted; give --yes if it is")
    if not yes and not click.confirm(f"delete {name} upstream, with all that is in it, for good?", err=True):
        click.echo(f"{name} was not deleted", err=True)
        leave(1)
    with _writing(ctx) as (config, writes):
        writes.delete(name, by=BY, upstream=upstream)
        if as_json:
            _print_row(config, name)
        else:
            click.echo(f"{name} is deleted")


@repo.command()
@click.argument("name", metavar="OWNER/SLUG")
@click.option("--into", metavar="WORKSPACE", help="Whose the fork is to be; the same owner's, if omitted.")
@click.option("--name", "title", metavar="TEXT", help="The fork's name; its parent's slug, if omitted.")
@settings_options
@upstream_option
@json_option
@click.pass_context
def fork(
    ctx: click.Context,
    /,
    name: str,
    into: str | None,
    title: str | None,
    upstream: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Fork a repository; the fork of a private one is private unless --public is given.

    \b
    Example:
        mirror repo fork jespern/django-piston --into erik --name piston-of-erik
    """
    owner, slug = _parts(name)
    if into is None and title is None:
        raise ConfigError("a fork needs another owner or another name: give --into WORKSPACE or --name TEXT")
    wanted = RepositorySettings(name=title or slug, **settings)
    with _writing(ctx) as (config, writes):
        made = writes.fork(name, into or owner, wanted, by=BY, upstream=upstream)
        _tell(config, f"forked from {name}", made, as_json=as_json)


@contextmanager
def _writing(ctx: click.Context) -> Iterator[tuple[Config, PassThrough]]:
    """Give the configuration and what writes by it, while the built-in sandbox answers if it has to."""
    config = configured(ctx)
    with built_in_sandbox(config):
        yield config, PassThrough(config)


def _parts(name: str) -> tuple[str, str]:
    owner, _, slug = name.partition("/")
    if not owner or not slug or "/" in slug:
        raise ConfigError(f"{name!r} is no repository; write it as OWNER/SLUG")
    return owner, slug


def _tell(config: Config, what: str, made: Repository, *, as_json: bool) -> None:
    if as_json:
        _print_row(config, made.full_name)
        return
    kind = " ".join(filter(None, ["private" if made.is_private else "public", made.scm]))
    click.echo(f"{made.full_name} is {what}: {kind}" + (f", {made.clone_https}" if made.clone_https else ""))


def _print_row(config: Config, full_name: str) -> None:
    """Print the row as the mirror has it now."""
    connection = open_reader(Path(config.database))
    try:
        row = repository_named(connection, OPERATOR, full_name, gone=True)
    finally:
        connection.close()
    click.echo(msgspec.json.encode(row.columns() if row else None))
