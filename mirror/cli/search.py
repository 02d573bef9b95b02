"""`mirror search`: find repositories by part of their name in the file."""

from collections.abc import Callable
from typing import Any

import click
import msgspec

from mirror.cli.main import json_option, limit_option, offset_option, reader
from mirror.cli.search_table import print_found
from mirror.queries.rows import LISTED
from mirror.queries.search import find_repositories
from mirror.queries.visibility import OPERATOR
from mirror.search.query import SWITCHES

_SWITCHED = {"yes": None, "no": False, "only": True}
_PRIVATE = {"public": False, "private": True}


def _switches(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that include, exclude or require some repositories."""
    for name in reversed(SWITCHES):
        option = click.option(
            f"--{name}",
            type=click.Choice(list(_SWITCHED)),
            default="yes",
            show_default=True,
            help=f"{name.capitalize()}: yes lists them too, no leaves them out, only lists nothing else.",
        )
        command = option(command)
    return command


@click.command()
@click.argument("query")
@limit_option
@offset_option
@click.option("--owner", metavar="NAME", help="Only repositories of this owner.")
@click.option("--scm", type=click.Choice(["git", "hg"]), help="Only repositories of this version control.")
@click.option("--language", metavar="NAME", help="Only repositories of this programming language.")
@click.option("--visibility", type=click.Choice(list(_PRIVATE)), help="Only public, or only private ones.")
@click.option(
    "--in",
    "within",
    type=click.Choice(["name", "description"]),
    default="name",
    show_default=True,
    help="description: also search descriptions, after names.",
)
@click.option("--gone", is_flag=True, help="Also list repositories that are gone upstream.")
@_switches
@click.option(
    "--fuzzy",
    is_flag=True,
    help="Correct typing errors even if something matches. Default: only if nothing matches.",
)
@json_option
@click.pass_context
def search(
    ctx: click.Context,
    /,
    query: str,
    limit: int,
    offset: int,
    owner: str | None,
    scm: str | None,
    language: str | None,
    visibility: str | None,
    within: str,
    gone: bool,
    fuzzy: bool,
    as_json: bool,
    **switches: str,
) -> None:
    """Find repositories by part of their name, offline.

    QUERY is part of a name, in any case; OWNER/PART finds it among the repositories of OWNER or, if there
    is no such owner, of owners whose name begins with it.

    \b
    Examples:
        mirror search django-
        mirror search jespern/ --json
        mirror search "" --language python --gone
        mirror search "rest api" --in description
    """
    filters: dict[str, Any] = {name: _SWITCHED[choice] for name, choice in switches.items()}
    with reader(ctx) as connection:
        found = find_repositories(
            connection,
            OPERATOR,
            query,
            limit=limit,
            offset=offset,
            owner=owner,
            scm=scm,
            language=language,
            private=_PRIVATE.get(visibility or ""),
            gone=gone,
            descriptions=within == "description",
            fuzzy=fuzzy or None,
            **filters,
        )
    if as_json:
        listed = [
            {**row.columns(*LISTED), **msgspec.structs.asdict(found.links(row))} for row in found.repositories
        ]
        said = {name: getattr(found, name) for name in ("query", "count", "fuzzy", "corrected", "described")}
        click.echo(msgspec.json.encode({**said, "repositories": listed}))
        return
    options = (owner, scm, language, visibility, *filters.values())
    print_found(found, filtered=any(option is not None for option in options))
