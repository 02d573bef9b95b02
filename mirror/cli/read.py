"""`mirror show`, `mirror changes`, `mirror inventory`: print what the file holds, without requests."""

import sqlite3
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

import click
import msgspec

from mirror.cli.common import json_option, number_option, out, reader
from mirror.cli.printer import Grid, Printer, cut, plain
from mirror.errors import ConfigError, NotFound
from mirror.queries.changes import EXPORTED, changes_since
from mirror.queries.past import details_of, past_exported, past_named
from mirror.queries.past_state import Looks, Past, PastRef
from mirror.queries.repositories import RepositoryDetails, repository_details
from mirror.queries.rows import ChangeRow, RefRow, RepositoryRow
from mirror.queries.visibility import OPERATOR
from mirror.readable import csv_chunks, edits, size_text
from mirror.search.find import one_snapshot
from mirror.times import ago, day_text, from_text, machine_zone, moment_of, past_moment, to_text, utc_now

if TYPE_CHECKING:
    from mirror.queries.inventory import InventoryLine


WHEN = (
    "a day or a moment, in this machine's zone unless it names one, like 2026-11-03, 2026-11-03T10:00 or"
    " 2026-11-03T10:00Z; or how long ago, like 12h"
)
"""How people write a moment: the help of the options that take one."""


@click.command()
@click.argument("name", metavar="OWNER/SLUG")
@click.option("--web", is_flag=True, help="Open its page at the upstream, and print the address.")
@number_option("--refs", "At most N branches and N tags; --json has all.", default=50)
@click.option(
    "--at",
    metavar="WHEN",
    help=f"As the mirror knew it then: {WHEN}.",
)
@json_option
def show(name: str, web: bool, refs: int, at: str | None, as_json: bool) -> None:
    """Show one repository with its branches and tags, and when they were read.

    OWNER/SLUG is its name, in any case; with --at the name that it had then, or has today.

    \b
    Examples:
        mirror show jespern/django-piston
        mirror show jespern/django-piston --web
        mirror show jespern/django-piston --at 2026-11-03T10:00
    """
    if name.count("/") != 1 or not all(name.split("/")):
        raise ConfigError(f"{name!r} is not a repository name; write OWNER/SLUG")
    if web and at is not None:
        raise ConfigError("--web opens today's page; omit --at")
    if web and as_json:
        raise ConfigError("--web prints the address alone; omit --json, or omit --web: JSON has it as url")
    moment = None if at is None else _moment(at)
    with reader() as connection:
        past = None if moment is None else past_named(connection, OPERATOR, name, moment)
        found = (
            repository_details(connection, OPERATOR, name) if past is None else details_of(connection, past)
        )
    if found is None:
        raise NotFound(f"the mirror holds no repository {name}; `mirror search` finds by part of a name")
    if web:
        _open_page(found)
    elif as_json:
        told = found.exported() if past is None else past_exported(found, past)
        click.echo(msgspec.json.encode(told))
    else:
        _print_details(found, refs, past)


def _moment(at: str) -> str:
    try:
        return past_moment(at, utc_now(), machine_zone)
    except ValueError as error:
        raise ConfigError(f"--at: {error}") from None


def _open_page(details: RepositoryDetails) -> None:
    row, url = details.row, details.last_page
    if url is None:
        raise NotFound(f"the upstream {details.upstream} has no web page of {row.full_name}")
    if row.deleted_at is not None:
        raise NotFound(
            f"{row.full_name} is gone since {row.deleted_at[:10]} ({row.gone_reason}); it was at {url}"
        )
    click.echo(url)  # too, since there may be no browser
    click.launch(url)


def _print_details(details: RepositoryDetails, most: int, past: Past | None) -> None:
    """Print a repository, today or in the past, with at most `most` branches and `most` tags."""
    printer, row, now = out(), details.row, utc_now()
    clones = [*details.links.clone_urls.values(), None, None]
    gone = f"  gone since {row.deleted_at[:10]}: {row.gone_reason}" if row.deleted_at else ""
    printer.say((plain(row.full_name), "bold"), (gone, "bold red"))
    if past is not None:
        exact = ", true to the day: older history was compacted" if past.to_the_day else ""
        printer.say((f"as the mirror knew it at {_moment_text(past.at)}{exact}", "bold"))
    if row.description:
        printer.say(row.description.strip())
    table = Grid({}, {})
    for label, value in (
        ("owner", row.owner),
        ("kind", _kind(row)),
        ("language", row.language),
        ("website", row.website),
        ("main branch", row.main_branch or _no_main_branch(details)),
        ("fork of", row.parent_full_name),
        ("web", details.links.url),
        ("clone", clones[0]),
        ("", clones[1]),
        ("size", "" if row.size is None else size_text(row.size)),
        ("created", _day(row.created_at, now)),
        ("updated", _day(row.updated_at, now)),
        ("seen", _looks_text(past.looks) if past else ago(row.last_seen_at, now)),
        ("refs read", _refs_read(row, past, now)),
        ("not recorded", ", ".join(past.not_recorded).replace("_", " ") if past else ""),
    ):
        if value:
            table.add(label, _one_line(str(value)))
    printer.table(table)
    told = {} if past is None else past.refs_by_name()
    for title_text, refs in (("branches", details.branches), ("tags", details.tags)):
        if refs is None:
            printer.say((f"{title_text}: {row.refs}", "bold"))
        else:
            printer.say((f"{title_text} ({len(refs):,})", "bold"))
            _print_refs(printer, refs, most, told, now)


def _print_refs(
    printer: Printer, refs: list[RefRow], most: int, told: Mapping[tuple[str, str], PastRef], now: datetime
) -> None:
    """Print at most `most` branches or tags; `told` maps those of the past."""
    listing = Grid({}, {}, {})
    for ref in refs[:most]:
        then = told.get((ref.kind, ref.name))
        made = ago(ref.made_at, now) if ref.made_at else ""
        listing.add(f"  {_one_line(ref.name)}", ref.target_hash[:12], _ref_looks_text(then) if then else made)
    if listing.rows:
        printer.table(listing)
    if len(refs) > most:
        more = f"  and {len(refs) - most:,} more; --refs {len(refs)} lists them, --json too"
        printer.say((more, "dim"))


def _refs_read(row: RepositoryRow, past: Past | None, now: datetime) -> str:
    if row.refs_synced_at is None:
        return row.refs
    return ago(row.refs_synced_at, now) if past is None else _looks_text(past.ref_looks)


def _kind(row: RepositoryRow) -> str:
    """Describe a repository: ``private git``. The title says if it is gone."""
    states = [state for state in row.states if state != "gone"]
    return " ".join(filter(None, ["" if row.is_private else "public", *states, row.scm]))


def _no_main_branch(details: RepositoryDetails) -> str:
    if details.branches is None:  # only a repository whose refs were read is known to be empty
        return "not known"
    return "none" if details.branches else "none, the repository is empty"


def _day(moment: str | None, now: datetime) -> str:
    return "" if moment is None else f"{moment[:10]}, {ago(moment, now)}"


def _looks_text(looks: Looks) -> str:
    """Describe the reads around a moment: ``2026-11-02 10:00 UTC, and next 2026-11-05 10:00 UTC``."""
    before = _moment_text(looks.before) if looks.before else "never"
    return f"{before}, and next {_moment_text(looks.after)}" if looks.after else f"{before}, and not since"


def _ref_looks_text(ref: PastRef) -> str:
    """Describe when a ref was seen at its commit, and what the next read found."""
    looks = ref.looks
    if looks.after is None:
        return f"seen {_moment_text(looks.before)}, not looked at since"
    if ref.next_target == ref.row.target_hash:
        found = "the same"
    else:
        found = f"at {ref.next_target[:12]}" if ref.next_target else "gone"
    return f"seen {_moment_text(looks.before)}; {_moment_text(looks.after)}: {found}"


def _moment_text(moment: str | None) -> str:
    return day_text(from_text(moment)) if moment else "never"


_LONGEST_VALUE = 60
"""How many columns a value of an edit has."""


@click.command()
@click.option(
    "--since",
    metavar="WHEN",
    default="7d",
    show_default=True,
    help=f"From then on: {WHEN}.",
)
@json_option
def changes(since: str, as_json: bool) -> None:
    """List changes of repositories and refs, oldest first.

    Repositories that were created, renamed, moved or are gone; branches and tags that moved. With --json, one
    object on each line.

    \b
    Example:
        mirror changes --since 24h
    """
    try:
        moment = moment_of(since, utc_now(), machine_zone)
    except ValueError as error:
        raise ConfigError(f"--since: {error}") from None
    some = False
    with reader() as connection:
        for change in changes_since(connection, OPERATOR, to_text(moment)):
            some = True
            if as_json:
                told = {name: getattr(change, name) for name in EXPORTED}
                click.echo(msgspec.json.encode({**told, "forced": change.was_forced}))
            else:
                click.echo(_change_line(change))
    if not some and not as_json:
        click.echo(f"Nothing since {to_text(moment)[:19]}Z")


def _change_line(change: ChangeRow) -> str:
    about = change.repository or change.owner or ""
    ref = f" {change.ref}" if change.ref else ""
    forced = ", forced" if change.was_forced else ""
    return _one_line(f"{change.at[:19]}Z  {change.kind:<15} {about}{ref}{_difference(change)}{forced}")


def _one_line(text: str) -> str:
    return plain(text).replace("\n", " ")


def _difference(change: ChangeRow) -> str:
    """Write what a change made of what; it begins with a space, and is "" where the kind says it all."""
    if change.kind == "updated":
        told = (
            f"{what}: {' -> '.join(cut(_one_line(value), _LONGEST_VALUE) for value in values)}"
            for what, *values in edits(change.old, change.new)
        )
        return f"  {'; '.join(told)}".rstrip()
    if change.kind == "deleted":
        return f", {change.new}" if change.new else ""
    if change.kind == "restored":
        return f", was {change.old}" if change.old else ""
    old, new = ((value[:12] if change.ref and value else value) for value in (change.old, change.new))
    if old and new:
        return f" {old} -> {new}" if change.ref else f"  {old} -> {new}"
    return f" at {new}" if new else f", was at {old}" if old else ""


UNKNOWN = "not known"
SHOWN = 20
"""The number of lines that are printed for people; programs get all."""


@click.command()
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV that is safe to open as a spreadsheet.")
@json_option
@click.option("--owner", metavar="NAME", help="Only repositories of this owner.")
def inventory(as_csv: bool, as_json: bool, owner: str | None) -> None:
    """List what a migration must know of each repository, by name.

    Owner, project, slug, size in bytes, visibility, archived, default branch, last push, branches, tags,
    forks, last author, webhooks. Unknown values are empty cells in CSV and null in JSON; --json prints one
    object on each line.

    \b
    Examples:
        mirror inventory --csv > inventory.csv
        mirror inventory --owner jespern --json
    """
    from mirror.queries.inventory import COLUMNS, all_lines  # noqa: PLC0415 - only this command needs it

    if as_csv and as_json:
        raise ConfigError("--csv and --json exclude each other; choose one")
    with reader() as connection, one_snapshot(connection):
        lines = all_lines(connection, OPERATOR, _ids(connection, owner))
        if as_csv:
            rows = ([getattr(line, column) for column in COLUMNS] for line in lines)
            for text in csv_chunks(COLUMNS, rows):
                click.echo(text, nl=False)
        elif as_json:
            for line in lines:
                click.echo(msgspec.json.encode(line))
        else:
            _print_some(lines)


def _ids(connection: sqlite3.Connection, owner: str | None) -> tuple[int, ...]:
    """Return the row ids of an owner, none for all owners; raises NotFound."""
    from mirror.queries.accounts import owners_named  # noqa: PLC0415 - only this command needs it

    if owner is None:
        return ()
    found = owners_named(connection, OPERATOR, owner)
    if not found:
        raise NotFound(f"the mirror has no owner {owner}; `mirror search {owner}/` searches by a part of it")
    return tuple(row.id for row in found)


def _print_some(lines: "Iterator[InventoryLine]") -> None:
    shown = list(islice(lines, SHOWN))
    count = len(shown) + sum(1 for _ in lines)
    titles = ("repository", "size", "visibility", "default branch", "last push", "branches", "tags")
    numbers = dict.fromkeys(("size", "branches", "tags"), "right")
    table = Grid(*({"header": title, "justify": numbers.get(title, "left")} for title in titles))
    for line in shown:
        unknown = "none" if line.branches == 0 else UNKNOWN  # an empty repository is known to have none
        cells = (
            UNKNOWN if line.size is None else size_text(line.size),
            line.visibility,
            line.default_branch or unknown,
            line.last_push[:10] if line.last_push else unknown,
            _number(line.branches),
            _number(line.tags),
        )
        table.add(f"{line.owner}/{line.slug}", *cells)
    more = "; --csv or --json prints all of them, with all columns" if count else ""
    noun = "repository" if count == 1 else "repositories"
    printer = out()
    printer.say((f"{count:,} {noun}, {len(shown)} shown{more}", "dim"))
    if shown:
        printer.table(table)


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"
