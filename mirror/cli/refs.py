"""`mirror refs`: find branches, tags and commits of all repositories in the file."""

import click
import msgspec

from mirror.cli.main import json_option, limit_option, offset_option, out, reader
from mirror.cli.printer import Grid, Marked, cut, plain
from mirror.queries.ref_search import ListedRef, find_refs
from mirror.queries.visibility import OPERATOR
from mirror.readable import repositories_text
from mirror.search import highlight_ranges
from mirror.search.index.refs.layout import KIND_NAMES
from mirror.times import ago, utc_now

_LONGEST_NAME = 100
"""The longest part of a name to print; `--json` has all of it."""


@click.command()
@click.argument("query")
@click.option("--kind", type=click.Choice(list(KIND_NAMES)), help="Only branches, or only tags.")
@click.option("--owner", metavar="NAME", help="Only refs of repositories of this owner.")
@click.option("--exact", is_flag=True, help="Only refs whose whole name, or whole hash, is QUERY.")
@click.option("--gone", is_flag=True, help="Also list refs of repositories that are gone upstream.")
@limit_option
@offset_option
@json_option
@click.pass_context
def refs(
    ctx: click.Context,
    /,
    query: str,
    kind: str | None,
    owner: str | None,
    exact: bool,
    gone: bool,
    limit: int,
    offset: int,
    as_json: bool,
) -> None:
    """Find branches and tags in every repository, offline.

    QUERY is part of a name, in any case, or a commit: seven digits or more of its hash. Names that are QUERY
    come first, then those that begin with it, then the others; each the newest first.

    \b
    Examples:
        mirror refs release/2.1 --exact
        mirror refs hotfix --kind tag
        mirror refs 1a2b3c4 --json
    """
    with reader(ctx) as connection:
        found = find_refs(
            connection,
            OPERATOR,
            query,
            limit=limit,
            offset=offset,
            kind=kind,
            owner=owner,
            exact=exact,
            gone=gone,
        )
    if as_json:
        click.echo(msgspec.json.encode(found.exported()))
        return
    printer = out()
    if found.count == 0:
        printer.say(f"No branch or tag matches {query!r}" if query else "No branch or tag matches")
    else:
        where = repositories_text(found.repositories)
        shown = f", {len(found.refs):,} shown" if len(found.refs) < found.count else ""
        printer.say((f"{found.count:,} found in {where}{shown}", "dim"))
    for note in found.notes:
        printer.say((note, "yellow"))
    if found.refs:
        printer.table(_table(found.refs, query))


def _table(listed: list[ListedRef], query: str) -> Grid:
    """Make the table of results."""
    table = Grid(*[{"overflow": "fold"}] * 2, *[{"no_wrap": True}] * 3)
    now = utc_now()
    for ref in listed:
        age = ago(ref.target_date, now) if ref.target_date else ""
        states = " ".join(ref.repository.states)
        name = ref.repository.full_name + (f"  {states}" if states else "")
        table.add(name, _marked_name(ref.name, query), ref.kind, ref.target_hash[:12], age)
    return table


def _marked_name(name: str, query: str) -> Marked:
    """Cut a name to one line, and highlight what matches."""
    shown = cut(plain(name).replace("\n", " "), _LONGEST_NAME)
    return Marked(shown, highlight_ranges(name, query, owners=False))
