"""`mirror publish`, `mirror site`: the public part of the mirror, as a file or as static pages."""

import os
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from mirror.cli.common import LocalPath, configured, errors, json_option
from mirror.cli.printer import progress_bar
from mirror.errors import ConfigError
from mirror.publish.snapshot import (
    OnProgress,
    Published,
    PublishOptions,
    check_tools,
    holds_counts,
    write_checksum,
    write_compressed,
    write_inspect,
)
from mirror.publish.snapshot import publish as write
from mirror.readable import repositories_text, size_text
from mirror.store.faults import explained
from mirror.store.lock import place_beside, place_of_copy
from mirror.times import to_text

EPOCH = "SOURCE_DATE_EPOCH"


@click.command()
@click.argument("target", metavar="FILE", type=LocalPath(path_type=Path))
@click.option("--no-authors", is_flag=True, help="Omit names and addresses of people in refs, and messages.")
@click.option("--check", is_flag=True, help="Search the file for private names; exit 1 if one is found.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists, and what --zst made of it.")
@click.option(
    "--inspect",
    type=LocalPath(path_type=Path),
    metavar="FILE",
    help="Also write this FILE for `datasette --inspect-file`, so that it need not count rows.",
)
@click.option("--zst", is_flag=True, help="Also write FILE.zst, and the SHA-256 of both.")
@json_option
def publish(
    target: Path,
    no_authors: bool,
    check: bool,
    force: bool,
    inspect: Path | None,
    zst: bool,
    as_json: bool,
) -> None:
    """Write what is public into a new file, to host anywhere; also while a sync writes.

    FILE gets public repositories alone, renumbered and packed, and is never written to again. The same
    public rows give the same bytes, whatever else the mirror holds.

    \b
    Examples:
        mirror publish public.db
        mirror publish /srv/www/public.db --force --no-authors --inspect /srv/www/inspect.json --zst
    """
    if zst:
        check_tools()  # before the work of minutes
    mirror = Path(configured().database)
    if inspect is not None and _place_of_counts(inspect, mirror) == place_of_copy(mirror, target):
        raise ConfigError("--inspect: is FILE itself; give another name")
    options = PublishOptions(authors=not no_authors, check=check, force=force, moment=_given_moment())
    with progress_bar("publishing") as progress:
        done = write(mirror, target, options, progress=progress)
        beside = _write_beside(done, inspect, zst=zst, progress=progress)
    _warn_of_hosts(done.inside_hosts)
    if as_json:
        click.echo(msgspec.json.encode({**msgspec.structs.asdict(done), "beside": list(map(str, beside))}))
        return
    click.echo(
        f"{target}: {done.rows['repositories']:,} public repositories as of {done.published_at[:16]}Z,"
        f" {size_text(done.bytes)}"
    )
    click.echo(f"sha256 {done.sha256}")
    if done.checked is not None:
        click.echo(f"none of {done.checked:,} private names and uuids is in it")
    for path in beside:
        click.echo(str(path))


def _place_of_counts(path: Path, mirror: Path) -> Path:
    """Return the real path of a file if the counts may replace it; raises ConfigError, StoreError."""
    real = place_beside(mirror, path)
    with explained(path):
        if real.exists() and not holds_counts(real):
            raise ConfigError(f"{path}: exists, and holds no counts; give another name, or remove it")
    return real


def _write_beside(done: Published, inspect: Path | None, *, zst: bool, progress: OnProgress) -> list[Path]:
    """Write the files beside the published one; return their paths."""
    written = list[Path]()
    file = Path(done.file)
    if inspect is not None:
        progress("counting", 0, 1)
        write_inspect(done, inspect)
        written.append(inspect)
    if zst:
        progress("compressing", 0, 1)
        compressed = write_compressed(file)
        written += [compressed, write_checksum(file), write_checksum(compressed)]
    return written


def _given_moment() -> str | None:
    """Return the moment in SOURCE_DATE_EPOCH, the convention of reproducible builds; None if it is unset."""
    text = os.environ.get(EPOCH)
    if not text:
        return None
    try:
        return to_text(datetime.fromtimestamp(int(text), UTC))
    except (ValueError, OverflowError, OSError):
        raise ConfigError(f"{EPOCH}={text}: not a number of seconds since 1970") from None


def _warn_of_hosts(hosts: list[str]) -> None:
    for host in hosts:  # of Data Centers, which often stand in an inner network
        line = f"mirror: what is public names {host} and its clone addresses; is that host to be known?"
        errors().print(line, markup=False)


@click.command()
@click.argument("folder", metavar="DIR", type=LocalPath(path_type=Path))
@click.option(
    "--base-url", default="", metavar="URL", help="Where the site will be, for its feed and sitemap."
)
@click.option("--title", default="", help="The title of the site. Default: Bitbucket mirror.")
@json_option
def site(folder: Path, base_url: str, title: str, as_json: bool) -> None:
    """Write what is public as static files, for any web host; also while a sync writes.

    DIR gets pages, a feed, and an index that the visitor's browser searches. Later runs write only what
    changed. Open DIR/index.html, or upload DIR.

    \b
    Examples:
        mirror site www
        mirror site /srv/www --base-url https://code.example.com/ --title "Code of the institute"
    """
    # Only this command needs the templates of a site.
    from mirror.site.build import (  # noqa: PLC0415
        TITLE,
        SiteOptions,
        make_site,
    )

    options = SiteOptions(title=title.strip() or TITLE, base_url=base_url)
    with progress_bar("pages") as progress:
        made = make_site(Path(configured().database), folder, options, progress=progress)
    _warn_of_hosts(made.inside_hosts)
    if as_json:
        click.echo(msgspec.json.encode(made))
        return
    click.echo(
        f"{folder}: {repositories_text(made.repositories)} of {made.owners:,}"
        f" {'owner' if made.owners == 1 else 'owners'} in {made.files:,} files,"
        f" {size_text(made.bytes)}; {made.written:,} written, {made.removed:,} removed"
    )
