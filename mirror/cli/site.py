"""`mirror site`: the public part of the mirror as static files."""

from pathlib import Path

import click
import msgspec

from mirror.cli.main import configured, json_option
from mirror.cli.publish import progress_bar, warn_of_hosts
from mirror.readable import size_text


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--base-url", default="", metavar="URL", help="Where the site will be, for its feed and sitemap."
)
@click.option("--title", default="", help="The title of the site. Default: Bitbucket mirror.")
@json_option
@click.pass_context
def site(ctx: click.Context, folder: Path, base_url: str, title: str, as_json: bool) -> None:
    """Write what is public as static files, for any web host; also while a sync writes.

    DIR gets pages, a feed, and names that the visitor's browser searches. Run again, it writes only what
    changed. Open DIR/index.html, or upload DIR.

    \b
    Examples:
        mirror site www
        mirror site /srv/www --base-url https://code.example.com/ --title "Code of the institute"
    """
    # Only who makes a site needs its templates.
    from mirror.site import SiteOptions, make_site  # noqa: PLC0415
    from mirror.site.build import TITLE  # noqa: PLC0415

    options = SiteOptions(title=title.strip() or TITLE, base_url=base_url)
    with progress_bar("pages") as told:
        made = make_site(Path(configured(ctx).database), folder, options, told=told)
    warn_of_hosts(made.inside_hosts)
    if as_json:
        click.echo(msgspec.json.encode(made))
        return
    click.echo(
        f"{folder}: {made.repositories:,} repositories of {made.owners:,} owners in {made.files:,} files,"
        f" {size_text(made.bytes)}; {made.written:,} written, {made.removed:,} removed"
    )
