"""`mirror repo create|update|delete|fork`: writes that pass through to the upstream."""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from mirror.cli.common import Option, WholeSummaries, configured, json_option, leave, options
from mirror.config import Config
from mirror.errors import ConfigError
from mirror.model import FORK_POLICIES, Repository, RepositorySettings
from mirror.operations import built_in_sandbox
from mirror.queries.repositories import repository_seen_last
from mirror.queries.visibility import OPERATOR
from mirror.store.files import open_reader
from mirror.write import PassThrough

BY = "the command line"

settings_options = options(
    click.option(
        "--private/--public",
        "is_private",
        default=None,
        help="Who sees it. Default: unchanged; for a new one as the upstream decides, for a fork of a private"
        " one private.",
    ),
    click.option("--description", metavar="TEXT", help="A short description."),
    click.option("--website", metavar="URL", help="The address of its website."),
    click.option("--language", metavar="NAME", help="Its programming language in lower case, like python."),
    click.option("--issues/--no-issues", "has_issues", default=None, help="Whether it has an issue tracker."),
    click.option("--wiki/--no-wiki", "has_wiki", default=None, help="Whether it has a wiki."),
    click.option(
        "--fork-policy",
        type=click.Choice(FORK_POLICIES),
        help="Who may fork it: anyone, only privately, or no one.",
    ),
)
"""The options for the settings of a repository; omitted ones are left to the upstream."""

upstream_option: Option = click.option(
    "--upstream",
    default="",
    metavar="NAME",
    help="The upstream's name. Default: the only one that has the owner or the repository.",
)


@click.group(cls=WholeSummaries)
def repo() -> None:
    """Create, change, delete and fork repositories, upstream and in the mirror.

    \b
    Example:
        mirror repo create jespern/new-idea --private
    """


@repo.command()
@click.argument("name", metavar="OWNER/SLUG")
@click.option("--name", "title", metavar="TEXT", help="Its name for people. Default: the slug.")
@click.option(
    "--scm",
    type=click.Choice(["git", "hg"]),
    help="Version control. Default: that of the owner's newest repository.",
)
@settings_options
@upstream_option
@json_option
def create(name: str, title: str | None, upstream: str, as_json: bool, **settings: Any) -> None:
    """Create a repository.

    OWNER is a workspace or project of the upstream, SLUG the new repository's name in addresses.

    \b
    Example:
        mirror repo create jespern/new-idea --private --scm git --description "A new idea"
    """
    owner, slug = _owner_and_slug(name)
    wanted = RepositorySettings(name=title or slug, **settings)
    with _writing() as (config, writes):
        made = writes.create(owner, wanted, slug=slug, by=BY, upstream=upstream)
        _print_result(config, "created", made, upstream, as_json=as_json)


@repo.command()
@click.argument("name", metavar="OWNER/SLUG")
@click.option("--name", "title", metavar="TEXT", help="A new name; the slug changes with it.")
@settings_options
@upstream_option
@json_option
def update(name: str, title: str | None, upstream: str, as_json: bool, **settings: Any) -> None:
    """Change a repository; what no option names stays as it is.

    OWNER/SLUG is the repository's current name.

    \b
    Example:
        mirror repo update jespern/new-idea --name "Old idea" --public
    """
    _owner_and_slug(name)
    wanted = RepositorySettings(name=title, **settings)
    if not wanted.given():
        raise ConfigError("nothing to change: give a setting, such as --description TEXT; see --help")
    with _writing() as (config, writes):
        made = writes.update(name, wanted, by=BY, upstream=upstream)
        _print_result(config, "updated", made, upstream, as_json=as_json)


@repo.command()
@click.argument("name", metavar="OWNER/SLUG")
@click.option(
    "--yes", is_flag=True, help="Delete without asking for confirmation; needed without a terminal."
)
@upstream_option
@json_option
def delete(name: str, yes: bool, upstream: str, as_json: bool) -> None:
    """Delete a repository for good; the mirror keeps its row and refs, marked as gone.

    OWNER/SLUG is the repository's name. Exit code 1 if it is not confirmed.

    \b
    Example:
        mirror repo delete jespern/old-idea
    """
    _owner_and_slug(name)
    if not yes and not sys.stdin.isatty():
        raise ConfigError(f"no terminal to confirm the deletion of {name}; give --yes to delete it")
    if not yes and not click.confirm(f"delete {name} upstream, with all that is in it, for good?", err=True):
        click.echo(f"{name} was not deleted", err=True)  # standard output is for the row
        leave(1)
    with _writing() as (config, writes):
        deleted = writes.delete(name, by=BY, upstream=upstream)
        if as_json:
            _print_row(config, deleted.uuid, upstream)
        else:
            click.echo(f"{name} is deleted")


@repo.command()
@click.argument("name", metavar="OWNER/SLUG")
@click.option("--into", metavar="WORKSPACE", help="The workspace of the fork. Default: that of its parent.")
@click.option("--name", "title", metavar="TEXT", help="The fork's name. Default: its parent's slug.")
@settings_options
@upstream_option
@json_option
def fork(
    name: str,
    into: str | None,
    title: str | None,
    upstream: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Fork a repository; the fork of a private one is private unless --public is given.

    OWNER/SLUG is the repository to fork.

    \b
    Example:
        mirror repo fork jespern/django-piston --into erik --name piston-of-erik
    """
    owner, slug = _owner_and_slug(name)
    if into is None and title is None:
        raise ConfigError("a fork needs another owner or another name: give --into WORKSPACE or --name TEXT")
    wanted = RepositorySettings(name=title or slug, **settings)
    with _writing() as (config, writes):
        made = writes.fork(name, into or owner, wanted, by=BY, upstream=upstream)
        _print_result(config, f"forked from {name}", made, upstream, as_json=as_json)


@contextmanager
def _writing() -> Iterator[tuple[Config, PassThrough]]:
    """Yield the configuration and what writes; runs the built-in sandbox if it is configured."""
    config = configured()
    with built_in_sandbox(config):
        yield config, PassThrough(config)


def _owner_and_slug(name: str) -> tuple[str, str]:
    owner, _, slug = name.partition("/")
    if not owner or not slug or "/" in slug:
        raise ConfigError(f"{name!r} is not a repository name; write OWNER/SLUG")
    return owner, slug


def _print_result(config: Config, what: str, made: Repository, upstream: str, *, as_json: bool) -> None:
    if as_json:
        _print_row(config, made.uuid, upstream)
        return
    kind = " ".join(filter(None, ["private" if made.is_private else "public", made.scm]))
    click.echo(f"{made.full_name} is {what}: {kind}" + (f", {made.clone_https}" if made.clone_https else ""))


def _print_row(config: Config, uuid: str, upstream: str) -> None:
    """Print a row as JSON: by its uuid, since another upstream may have one of its name."""
    with closing(open_reader(Path(config.database))) as connection:
        row = repository_seen_last(connection, OPERATOR, uuid, upstream=upstream)
    click.echo(msgspec.json.encode(row.columns() if row else None))
