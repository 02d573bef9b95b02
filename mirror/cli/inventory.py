"""`mirror inventory`: facts about each repository, to plan a migration."""

import sqlite3
from collections.abc import Iterator
from itertools import islice

import click
import msgspec

from mirror.cli.main import json_option, out, reader
from mirror.cli.printer import Grid
from mirror.errors import ConfigError, NotFound
from mirror.queries.accounts import owners_named
from mirror.queries.inventory import COLUMNS, InventoryLine, all_lines
from mirror.queries.visibility import OPERATOR
from mirror.readable import csv_chunks, size_text
from mirror.search.find import one_snapshot

UNKNOWN = "not known"
SHOWN = 20
"""The number of lines to print for people; programs get all."""


@click.command()
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV that is safe to open as a spreadsheet.")
@json_option
@click.option("--owner", metavar="NAME", help="Only repositories of this owner.")
@click.pass_context
def inventory(ctx: click.Context, as_csv: bool, as_json: bool, owner: str | None) -> None:
    """List what a migration must know of each repository, by name.

    Owner, project, slug, size in bytes, visibility, archived, default branch, last push, branches, tags,
    forks, last author, webhooks. What is not known is an empty cell in CSV, null in JSON; --json prints an
    object on each line.

    \b
    Examples:
        mirror inventory --csv > inventory.csv
        mirror inventory --owner jespern --json
    """
    if as_csv and as_json:
        raise ConfigError("--csv and --json exclude each other; choose one")
    with reader(ctx) as connection, one_snapshot(connection):
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
    if owner is None:
        return ()
    found = owners_named(connection, owner)
    if not found:
        raise NotFound(f"the mirror has no owner {owner}; `mirror search {owner}/` searches by a part of it")
    return tuple(row.id for row in found)


def _print_some(lines: Iterator[InventoryLine]) -> None:
    """Print the first lines as a table, and how many there are."""
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
