"""`mirror token create|list|revoke`: the tokens of readers and writers."""

from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import click

from mirror.cli.common import WholeSummaries, configured, out
from mirror.cli.printer import Grid, plain
from mirror.errors import ConfigError
from mirror.readable import abridged
from mirror.store import Store, tokens
from mirror.store.faults import damage_explained
from mirror.store.files import open_reader
from mirror.times import seconds_of, utc_now


@click.group(cls=WholeSummaries)
def token() -> None:
    """Make, list and revoke local API tokens; the mirror keeps only their hashes.

    \b
    Example:
        mirror token create ci --scope read
    """


@token.command()
@click.argument("name")
@click.option("--scope", default="read", show_default=True, help="The scope: read, write, or read,write.")
@click.option(
    "--expires", metavar="DURATION", help="How long it is valid, like 30d or 12h. Default: forever."
)
@click.option(
    "--user",
    metavar="NAME",
    help="A mirrored user: the token shows what that user may see. Default: the whole mirror.",
)
def create(name: str, scope: str, expires: str | None, user: str | None) -> None:
    """Make a token and print it; it cannot be printed again.

    NAME is a name of your own, to list and revoke it by.

    \b
    Example:
        mirror token create laptop --expires 90d
    """
    until = _end_of_validity(expires) if expires is not None else None
    with _store(create=True) as store:
        click.echo(tokens.create(store, name, scope, until, user=user))
    # Standard output is the token alone, for scripts.
    click.echo(_rights_text(user, writes=tokens.read_scope(scope) == "write"), err=True)


@token.command("list")
def list_tokens() -> None:
    """List all tokens, also revoked and expired ones.

    \b
    Example:
        mirror token list
    """
    titles = ("id", "name", "scope", "user", "created", "last used", "expires", "revoked")
    table = Grid(*({"header": title} for title in titles))
    path = Path(configured().database)
    with closing(open_reader(path)) as connection, damage_explained(path):
        for row in tokens.listed(connection):
            moments = (row.created_at, row.last_used_at, row.expires_at, row.revoked_at)
            days = (moment[:10] if moment else "" for moment in moments)
            table.add(str(row.id), _escaped(row.name), row.scope, _escaped(row.user or ""), *days)
    out().table(table)


@token.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke a token, from the next request on.

    NAME is the token's name, or its number in the list.

    \b
    Example:
        mirror token revoke laptop
    """
    with _store() as store:
        tokens.revoke(store, name)
    click.echo(f"{_escaped(abridged(name, tokens.LONGEST_NAME))} is revoked")


def _escaped(text: str) -> str:
    """Write a name on one line: older versions took any text as one."""
    return plain(text).replace("\n", "\\n")


def _rights_text(user: str | None, *, writes: bool) -> str:
    if user is None:
        verb = "sees and writes" if writes else "sees"
        return f"this token {verb} everything in the mirror; --user NAME limits one to what a user may see"
    also = f", and writes what {user} owns or administers" if writes else ""
    return f"this token sees what {user} owns or is a member of{also}"


def _end_of_validity(expires: str) -> datetime:
    try:
        seconds = seconds_of(expires)
    except ValueError as error:
        raise ConfigError(f"--expires: {error}") from None
    if not seconds:
        raise ConfigError(f"--expires: a token must be valid for longer than {expires}")
    return utc_now() + timedelta(seconds=seconds)


def _store(*, create: bool = False) -> Store:
    """Open the mirror; raises StoreError if there is none, unless `create` allows a new one."""
    config = configured()
    path = Path(config.database)
    if not create:
        open_reader(path).close()
    return Store(path, config.mode)
