"""`mirror export`, `mirror lake` and `mirror plan-split`: many mirrors, one lake of Parquet files.

pyarrow is imported only where it is needed, so that other commands start without it.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import click
import msgspec

from mirror.cli.common import LocalPath, WholeSummaries, configured, json_option
from mirror.cli.printer import progress_bar
from mirror.cli.setup import write_new
from mirror.errors import ConfigError
from mirror.lake.columns import TABLES
from mirror.readable import size_text
from mirror.store.faults import damage_explained, explained
from mirror.store.files import open_reader
from mirror.store.lock import place_apart

Engine = Literal["duckdb", "spark"]


@click.group(cls=WholeSummaries)
def export() -> None:
    """Export the mirror into a lake, which other programs read.

    \b
    Example:
        mirror export parquet /srv/lake
    """


@export.command()
@click.argument("place", metavar="DIR")
@click.option("--full", is_flag=True, help="Export everything, instead of only changes.")
@click.option("--public", is_flag=True, help="Export only what strangers may see, as `mirror publish` does.")
@click.option("--compact", is_flag=True, help="Then merge the files since the last full export into a few.")
@json_option
def parquet(place: str, full: bool, public: bool, compact: bool, as_json: bool) -> None:
    """Write Parquet files into a lake, also while a sync writes.

    DIR is a folder, or s3://BUCKET/PATH; many mirrors may share it. The first export writes everything, later
    ones only what changed; if nothing changed, no file is written. Keys of an object store come from the
    environment (AWS_ACCESS_KEY_ID, ...).

    \b
    Examples:
        mirror export parquet /srv/lake
        mirror export parquet s3://lake/bitbucket --compact
        mirror export parquet /srv/public-lake --public
    """
    from mirror.lake.export import ExportOptions  # noqa: PLC0415
    from mirror.lake.export import export as write  # noqa: PLC0415
    from mirror.lake.place import Place  # noqa: PLC0415

    mirror = Path(configured().database)
    options = ExportOptions(full=full, public=public, compact=compact)
    with _bar("exporting") as progress:
        done = write(mirror, Place(place), options, progress=progress)
    click.echo(msgspec.json.encode(done) if as_json else done.text)


@click.group(cls=WholeSummaries)
def lake() -> None:
    """Work with a lake that many mirrors export into: merge it, make one mirror out of it.

    \b
    Example:
        mirror lake merge /srv/lake /srv/merged
    """


@lake.command("merge")
@click.argument("place", metavar="DIR")
@click.argument("out", metavar="OUT", type=LocalPath(path_type=Path))
@click.option(
    "--engine",
    type=click.Choice(["duckdb", "spark"]),
    default="duckdb",
    show_default=True,
    help="The engine: DuckDB on this machine, or Spark.",
)
@click.option("--memory", metavar="SIZE", help="Maximum memory of DuckDB, like 4GB. Default: DuckDB's own.")
@click.option(
    "--master", metavar="URL", help="The master of Spark, like spark://HOST:7077. Default: Spark's own."
)
@json_option
def lake_merge(
    place: str, out: Path, engine: Engine, memory: str | None, master: str | None, as_json: bool
) -> None:
    """Merge the exports of many mirrors into one row for each repository, in Parquet files.

    DIR is the folder of the exports. The latest row of a repository counts; it is gone only if all
    mirrors that have it say so, and private if any says so. All its refs come from the mirror that read them
    last.
    OUT is the folder of the result, which is replaced as a whole.

    \b
    Examples:
        mirror lake merge /srv/lake /srv/merged
        mirror lake merge /srv/lake /srv/merged --engine spark --master spark://host:7077
    """
    from mirror.lake.merge import merge  # noqa: PLC0415

    place_apart(Path(configured().database), out)
    done = merge(place, out, engine, memory=memory, master=master)
    click.echo(msgspec.json.encode(done) if as_json else done.text)


@lake.command("build")
@click.argument("file", metavar="FILE", type=LocalPath(path_type=Path))
@click.option(
    "--from", "merged", metavar="OUT", required=True, type=LocalPath(path_type=Path),
    help="The folder that `mirror lake merge` made.",
)  # fmt: skip
@click.option(
    "--owners", metavar="PATTERN", help="Only repositories of owners whose name matches, like 'team-*'."
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@json_option
def lake_build(file: Path, merged: Path, owners: str | None, force: bool, as_json: bool) -> None:
    """Make one mirror out of a merged lake, with its index, ready to serve and to publish.

    FILE answers searches, pages and APIs for all mirrors of the lake as one. A lake does not have the fields
    of API 2.0 that are not columns of tables.

    \b
    Examples:
        mirror lake build union.db --from /srv/merged
        mirror lake build team.db --from /srv/merged --owners 'team-*'
    """
    from mirror.lake.build import build  # noqa: PLC0415

    with _bar("filling") as progress:
        done = build(file, merged, Path(configured().database), owners=owners, force=force, progress=progress)
    refs = done.rows["branches"] + done.rows["tags"]
    click.echo(
        msgspec.json.encode(done)
        if as_json
        else f"{file}: {done.rows['repositories']:,} repositories, {refs:,} refs, {size_text(done.bytes)}"
    )


@click.command("plan-split")
@click.option("--mirrors", metavar="K", type=int, required=True, help="The number of mirrors.")
@click.option("--upstream", "name", metavar="NAME", help="The upstream to split, if there are several.")
@click.option(
    "--out",
    metavar="DIR",
    type=LocalPath(path_type=Path),
    help="Write the configurations into this folder, with the workspaces in files beside them.",
)
@json_option
def plan_split(mirrors: int, name: str | None, out: Path | None, as_json: bool) -> None:
    """Print K configurations of equal load, each for a mirror with a credential of its own.

    The workspaces and their sizes come from the mirror and from the configuration; no request is sent. A
    workspace stays whole.

    \b
    Examples:
        mirror plan-split --mirrors 4
        mirror plan-split --mirrors 40 --out /etc/mirrors
    """
    from mirror.operations import chosen  # noqa: PLC0415
    from mirror.sync.split import configuration_of, known_workspaces, split  # noqa: PLC0415

    config = configured()
    found = chosen(config, [name] if name else [])
    if len(found) > 1:
        raise ConfigError(f"--upstream: choose one ({', '.join(one.name for one in found)})")
    with _reader(Path(config.database)) as connection:
        shares = split(known_workspaces(connection, found[0]), mirrors)
    texts = [
        configuration_of(
            config, found[0], share, number=number, names_file=f"workspaces-{number}.txt" if out else None
        )
        for number, share in enumerate(shares, 1)
    ]
    if out is not None:
        _write_configurations(out, texts, [share.workspaces for share in shares])
    if as_json:
        click.echo(msgspec.json.encode(shares))
    elif out is None:
        click.echo("\n".join(texts), nl=False)
    else:
        click.echo("".join(text.partition("\n")[0].removeprefix("# ") + "\n" for text in texts), nl=False)


def _write_configurations(folder: Path, texts: list[str], workspaces: list[list[str]]) -> None:
    """Write the configurations and the lists of workspaces into a folder that has none of them."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; give a folder")
    files = dict[Path, str]()
    for number, (text, names) in enumerate(zip(texts, workspaces, strict=True), 1):
        files[folder / f"mirror-{number}.toml"] = text
        files[folder / f"workspaces-{number}.txt"] = "".join(f"{name}\n" for name in names)
    for path in files:  # all are looked at first: no half of a plan is written
        if path.exists():
            raise ConfigError(f"{path}: exists; give another folder, or remove it")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_new(files)


@contextmanager
def _reader(mirror: Path) -> Iterator[sqlite3.Connection | None]:
    """Open the mirror; None if there is none yet."""
    if not mirror.exists():
        yield None
        return
    with closing(open_reader(mirror)) as connection, damage_explained(mirror):
        connection.row_factory = None
        yield connection


@contextmanager
def _bar(what: str) -> Iterator[Callable[[str, int], None]]:
    """Show a bar of the tables of a lake; yields a function of the present table or later step, and rows."""
    names = [table.name for table in TABLES]
    with progress_bar(what) as progress:
        yield lambda table, rows: progress(
            (f"{what} {table}" if table in names else table) + (f": {rows:,} rows" if rows else ""),
            names.index(table) if table in names else len(names),
            len(names),
        )
