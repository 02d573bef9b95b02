"""`mirror search` and `mirror refs`: find repositories, or branches, tags and commits, in the file."""

from typing import Any, get_args

import click
import msgspec

from mirror.cli.common import json_option, options, out, page_options, reader
from mirror.cli.printer import Grid, Marked, columns_of, cut, plain
from mirror.model import RefKind
from mirror.queries.rows import LISTED, RepositoryRow
from mirror.queries.search import FoundRepositories, ListedRef, find_refs, find_repositories
from mirror.queries.visibility import OPERATOR
from mirror.readable import abridged, repositories_text
from mirror.search import highlight_ranges
from mirror.search.query import SWITCHES
from mirror.times import ago, utc_now

_SWITCHED = {"yes": None, "no": False, "only": True}
_PRIVATE = {"public": False, "private": True}


_switches = options(
    *(
        click.option(
            f"--{name}",
            type=click.Choice(list(_SWITCHED)),
            default="yes",
            show_default=True,
            help=f"{name.capitalize()}: yes lists them too, no leaves them out, only lists nothing else.",
        )
        for name in SWITCHES
    )
)
"""The options that include, exclude or require some repositories."""


@click.command()
@click.argument("query")
@page_options
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
def search(
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
    with reader() as connection:
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
        listed = [{**row.columns(*LISTED), **found.links(row).exported()} for row in found.repositories]
        said = {name: getattr(found, name) for name in ("query", "count", "fuzzy", "corrected", "described")}
        click.echo(msgspec.json.encode({**said, "repositories": listed}))
        return
    given = (owner, scm, language, visibility, *filters.values())
    print_found(found, filtered=any(option is not None for option in given))


_GAP = 2
"""Columns of the terminal between two cells."""
_SHORTEST_ABOUT, _LONGEST_ABOUT = 20, 80
"""The smallest and the largest width of a description."""


def print_found(found: FoundRepositories, *, filtered: bool) -> None:
    """Print the number of matches, and a page of them as a table; `filtered` if options exclude others."""
    query, printer = found.query, out()
    if found.count == 0:
        what = f" {_quoted(query)}" if query else ""
        printer.say(f"No repository matches{what}{' with these filters' if filtered else ''}")
        return
    how = f", corrected to {', '.join(found.corrected)}" if found.fuzzy else ""
    how += f", {found.described:,} of them by their description" if found.described else ""
    shown = len(found.repositories)
    some = f", {shown} shown" if shown < found.count else ""
    printer.say((f"{found.count:,} found{how}{some}", "dim"))
    if shown:
        printer.table(_results(found.repositories, found.corrected or (query,), printer.width))


def _results(rows: list[RepositoryRow], needles: tuple[str, ...], width: int) -> Grid:
    """Make the table of results. Names are never cut; other columns are left out on a narrow terminal."""
    columns = [
        [_marked(row.full_name, needles) for row in rows],
        [Marked(row.scm or "") for row in rows],
        [Marked(" ".join(row.states)) for row in rows],
        [Marked("" if row.followers_count is None else f"{row.followers_count:,}") for row in rows],
    ]
    shown, layouts = list[list[Marked]](), list[dict[str, Any]]()
    for cells in columns:
        widest = max(columns_of(cell.text) for cell in cells)
        if not shown or 0 < widest <= width:
            shown.append(cells)
            layouts.append({"overflow": "fold", "min_width": min(widest, width), "no_wrap": bool(shown[1:])})
            width -= widest + _GAP
    if width >= _SHORTEST_ABOUT:
        shown.append([Marked(" ".join((row.description or "").split())) for row in rows])
        layouts.append({"overflow": "ellipsis", "no_wrap": True, "max_width": min(width, _LONGEST_ABOUT)})
    table = Grid(*layouts)
    for row in zip(*shown, strict=True):
        table.add(*row)
    return table


def _marked(full_name: str, needles: tuple[str, ...]) -> Marked:
    full_name = plain(full_name)
    start = full_name.find("/") + 1
    return Marked(
        full_name,
        [
            (start + begin, start + end)
            for needle in needles
            for begin, end in highlight_ranges(full_name[start:], needle)
        ],
    )


_LONGEST_NAME = 100
"""The longest part of a name, or of the query, to print; `--json` has all of it."""


def _quoted(query: str) -> str:
    return repr(abridged(query, _LONGEST_NAME))


@click.command()
@click.argument("query")
@click.option("--kind", type=click.Choice(get_args(RefKind)), help="Only branches, or only tags.")
@click.option("--owner", metavar="NAME", help="Only refs of repositories of this owner.")
@click.option("--exact", is_flag=True, help="Only refs whose whole name, or whole hash, is QUERY.")
@click.option("--gone", is_flag=True, help="Also list refs of repositories that are gone upstream.")
@page_options
@json_option
def refs(
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

    QUERY is part of a name, in any case, or a commit: seven digits or more of its hash. Names equal
    to QUERY come first, then those that begin with it, then the others; newest first within each.

    \b
    Examples:
        mirror refs release/2.1 --exact
        mirror refs hotfix --kind tag
        mirror refs 1a2b3c4 --json
    """
    with reader() as connection:
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
        printer.say(f"No branch or tag matches {_quoted(query)}" if query else "No branch or tag matches")
    else:
        where = repositories_text(found.repositories)
        shown = f", {len(found.refs):,} shown" if len(found.refs) < found.count else ""
        printer.say((f"{found.count:,} found in {where}{shown}", "dim"))
    for note in found.notes:
        printer.say((note, "yellow"))
    if found.refs:
        printer.table(_table(found.refs, query, printer.width))


_SHORTEST_NAMES = 40
"""The smallest width of the names of a repository and a ref together."""


def _table(listed: list[ListedRef], query: str, width: int) -> Grid:
    """Make the table of refs. Names are never cut; other columns are left out on a narrow terminal."""
    now = utc_now()
    others = []
    for cells in (
        [ref.kind for ref in listed],
        [ref.target_hash[:12] for ref in listed],
        [ago(ref.target_date, now) if ref.target_date else "" for ref in listed],
    ):
        width -= max(map(len, cells)) + _GAP
        if width >= _SHORTEST_NAMES:
            others.append(cells)
    table = Grid({}, {}, *[{"no_wrap": True}] * len(others))
    for ref, *rest in zip(listed, *others, strict=True):
        states = " ".join(ref.repository.states)
        repository = ref.repository.full_name + (f"  {states}" if states else "")
        shown = cut(plain(ref.name).replace("\n", " "), _LONGEST_NAME)
        name = Marked(shown, highlight_ranges(ref.name, query, owners=False))
        table.add(repository, name, *rest)
    return table
