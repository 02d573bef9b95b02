"""Checks that no field of a configuration can make alone: of names, addresses, policies, modes of files.

`mirror.settings.explained` turns a complaint into an error with the line and the remedy.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from mirror.readable import did_you_mean
from mirror.times import zone_named

if TYPE_CHECKING:
    from mirror.config import Config, UpstreamConfig

OTHERS = 0o077
"""The bits of a mode that concern other users."""


PUBLIC_URL = re.compile(
    r"(?P<origin>https?://[^/?#\s\"'<>@]+)(?P<path>(?:/[^/?#\s\"'<>;]+)*)/?", re.IGNORECASE
)
"""Where a proxy publishes a mirror."""

LONGEST_TIMEOUT = 86_400  # the system takes none of a few weeks


def complaints(config: "Config") -> Iterator[tuple[str, str]]:
    """Yield faults that no field can check alone: the path of a setting, and the complaint."""
    if config.timezone and zone_named(config.timezone) is None:
        yield "$.timezone", f"{config.timezone!r} is not a time zone"
    # The owner must read and write; a mode for programs and folders is a mistake.
    if not re.fullmatch(r"0?6[046]{2}", config.file_mode):
        yield "$.file_mode", f'{config.file_mode!r} is not a file mode; write "0600", or "0660" for a group'
    # SQLite would take these for a temporary database, one in memory, or a URI; "." and "/" name no file.
    is_odd = re.match(r"\s*$|:memory:$|file:", config.database) or "\0" in config.database
    if is_odd or not Path(config.database).name:
        yield "$.database", f"{config.database!r} is not a file path"
    yield from _serve_complaints(config)
    yield from _alert_complaints(config)
    seen = set[str]()
    for index, upstream in enumerate(config.upstreams):
        path = f"$.upstream[{index}]"
        if upstream.name in seen:
            yield f"{path}.name", f"{upstream.name!r} is the name of another upstream; give each its own"
        seen.add(upstream.name)
        yield from _url_complaints(upstream.url, f"{path}.url")
        if not 0 < upstream.timeout <= LONGEST_TIMEOUT:
            yield f"{path}.timeout", "must be longer than 0s, and at most 1d"
        if not upstream.url and (example := _ADDRESSES.get(upstream.kind)):
            yield f"{path}.kind", f'{upstream.kind!r} needs a url; add one like url = "{example}"'
        yield from _secret_complaints(upstream, path)
        yield from _name_complaints(upstream, path)
    for path in _with_nul(config, "$"):
        yield path, "has a NUL character; leave it out"


# Of the kinds that have no default.
_ADDRESSES = {
    "datacenter": "https://bitbucket.example/rest/api/1.0",
    "legacy": "https://bitbucket.example/1.0",
}


def _with_nul(value: object, path: str) -> Iterator[str]:
    """Yield the path of each text that has a NUL character: no path and no address may have one."""
    if isinstance(value, str) and "\0" in value:
        yield path
    elif isinstance(value, tuple):
        for index, one in enumerate(value):
            yield from _with_nul(one, f"{path}[{index}]")
    elif isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(value):
            yield from _with_nul(getattr(value, field.name), f"{path}.{field.encode_name}")


def _serve_complaints(config: "Config") -> Iterator[tuple[str, str]]:
    if config.serve.read_only and config.serve.writes:
        yield "$.serve.writes", "a server that is read_only passes no writes on; remove one of the two"
    if config.serve.public_snapshot and config.serve.public_snapshot == config.database:
        yield "$.serve.public_snapshot", "is the mirror itself; name a file of `mirror publish`"
    if config.serve.public_url and not PUBLIC_URL.fullmatch(config.serve.public_url):
        yield "$.serve.public_url", "is not https://HOST or https://HOST/PATH, without login, ? and #"
    if config.serve.csp:
        try:
            sources_of(config.serve.csp)
        except ValueError as error:
            yield "$.serve.csp", str(error)
    if config.publish_schedule.strip() and not config.serve.public_snapshot:
        yield "$.publish_schedule", "needs a file to publish into: [serve] public_snapshot"
    yield from _url_complaints(config.site_url, "$.site_url")
    if config.site_schedule.strip() and not config.site_folder:
        yield "$.site_schedule", "needs a folder to make the site in: site_folder"
    if config.export_schedule.strip() and not config.export_to:
        yield "$.export_schedule", "needs a lake to export into: export_to"


def _url_complaints(text: str, path: str) -> Iterator[tuple[str, str]]:
    if not text:
        return
    try:
        url, port = urlsplit(text), urlsplit(text).port
    except ValueError:
        yield path, "is not a web address"  # not shown: it may contain a login, which cannot be found in it
        return
    if url.username is not None or url.password is not None:
        yield path, "an address must hold no login; put it where `credential` points"
    elif url.scheme not in ("http", "https") or not url.hostname or port == 0:
        yield path, f"{text!r} is not a web address; it begins with https:// or http://"
    elif re.search(r"[\s?#\x00-\x1f]", text):
        yield path, "an address must hold no spaces, no ? and no #"
    elif "%25" in url.hostname:  # names of hosts have no escapes, so it would not be found
        yield path, "the zone of an IPv6 address follows a single %; write it like http://[fe80::1%eth0]/2.0"


def _name_complaints(upstream: "UpstreamConfig", path: str) -> Iterator[tuple[str, str]]:
    if upstream.workspaces is not None and not upstream.workspaces:
        yield f"{path}.workspaces", f"names no workspace; {NAME_SOME}"
    for workspace in upstream.workspaces or ():
        if complaint := workspace_complaint(workspace):
            yield f"{path}.workspaces", complaint
    if upstream.workspaces is not None and upstream.workspaces_from:
        yield f"{path}.workspaces_from", "the workspaces are named already; remove one of the two lines"
    for name in upstream.accept_missing:
        if not re.fullmatch(r"[^\s/?#]+/[^\s/?#]+", name):
            yield f"{path}.accept_missing", f"{name!r} is not a repository name"


NAME_SOME = "name some, or leave the setting out to mirror those of the credential"


def workspace_complaint(name: str) -> str | None:
    """Return the complaint about the slug of a workspace; None for a valid one."""
    good = re.fullmatch(r"[^\s/?#]{1,255}", name)
    return None if good else f"{name!r} is not a workspace; give the slug, as in its address"


def address_complaint(address: str) -> str | None:
    """Return the complaint about the address of an alert, without showing it; None for a valid one."""
    try:
        url = urlsplit(address)
        _ = url.port
    except ValueError:
        return "is not a web address"
    if url.scheme not in ("http", "https") or not url.hostname:
        return "is not a web address; it begins with https:// or http://"
    if url.username is not None or url.password is not None:
        return "holds a user and a password; alerts send none, use an address that needs no login"
    return None


def _alert_complaints(config: "Config") -> Iterator[tuple[str, str]]:
    for index, alert in enumerate(config.alerts):
        path = f"$.alert[{index}]"
        if sum(bool(way) for way in (alert.ping, alert.url, alert.command)) != 1:
            yield path, "this section needs one of ping, url and command"
        for key in ("ping", "url"):
            address = getattr(alert, key)
            if not address or re.match(r"env:[A-Za-z_]\w*$|file:.", address):
                continue
            if not re.match(r"https?://[^\s/]", address):
                yield f"{path}.{key}", 'must be a web address, or say where one is: "env:NAME" or "file:PATH"'
            elif complaint := address_complaint(address):
                yield f"{path}.{key}", complaint


def _secret_complaints(upstream: "UpstreamConfig", path: str) -> Iterator[tuple[str, str]]:
    for key in ("credential", "webhook_secret"):
        source = getattr(upstream, key)
        if source is not None and not re.fullmatch(r"(env:[A-Za-z_]\w*|file:.+)", source):
            yield (
                f"{path}.{key}",
                'must say where the secret is: "env:NAME" or "file:PATH"; never the secret itself',
            )


def warn(config: "Config") -> None:
    """Log a warning for each file that is open to other users, and for a token that nothing uses."""
    import logging  # noqa: PLC0415 - reading commands log nothing

    for line in (*open_files(config), *unused_token(config, os.environ)):
        logging.getLogger(__name__).warning(line)


TOKEN = "BITBUCKET_TOKEN"  # noqa: S105 - the variable that `mirror init` and the documents name


def unused_token(config: "Config", environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence with the remedy for each upstream at Bitbucket that ignores a token that is set."""
    used = {upstream.credential for upstream in config.upstreams}
    if not environ.get(TOKEN) or f"env:{TOKEN}" in used:
        return
    for upstream in config.upstreams:
        if upstream.kind == "cloud" and upstream.credential is None:
            yield (
                f"{TOKEN} is set, but {upstream.name} has no credential and reads only what is public:"
                f' write credential = "env:{TOKEN}" into its section'
            )


def open_files(config: "Config") -> Iterator[str]:
    """Yield a sentence with the remedy for each file that other users may read or write."""
    database = Path(config.database)
    for path in (database, database.with_name(f"{database.name}-wal")):  # both hold rows
        if mode := _open_mode(path, config):
            yield (
                f"{path} is open to other users (mode {mode:04o}): chmod {config.file_mode} {path},"
                " or say so by file_mode"
            )
    for path in dict.fromkeys(_secret_files(config)):
        if mode := _open_mode(path, config):
            yield f"{path} holds a secret and is open to other users (mode {mode:04o}): chmod 600 {path}"


def _open_mode(path: Path, config: "Config") -> int:
    """Return the mode of a file that is more open than configured, else 0; also 0 if it is unknown."""
    try:
        state = path.stat().st_mode
    except (OSError, ValueError):
        return 0
    # A folder or a device is named by mistake: nobody should be advised to change its mode.
    mode = stat.S_IMODE(state) & 0o777 if stat.S_ISREG(state) else 0
    return mode if mode & OTHERS & ~config.mode else 0


def _secret_files(config: "Config") -> Iterator[Path]:
    sources = [
        *(source for one in config.upstreams for source in (one.credential, one.webhook_secret)),
        *(source for one in config.alerts for source in (one.ping, one.url)),
    ]
    yield from (
        Path(source.removeprefix("file:")) for source in sources if source and source.startswith("file:")
    )


DIRECTIVES = (
    "connect-src", "font-src", "frame-src", "img-src", "media-src", "script-src", "style-src", "worker-src",
)  # fmt: skip
"""The directives to which sources can be added."""

# Not compiled here: every command reads a configuration, and few add sources.
_HOST = r"(https?|wss?)://(\*\.)?[a-z0-9][\w.-]*(:\d{1,5})?(/[\w./~%!$&()*+=:@-]*)?"
_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "font-src": ("data:",),
    "img-src": ("data:", "blob:"),
    "media-src": ("data:", "blob:"),
    "script-src": ("'unsafe-eval'", "'wasm-unsafe-eval'"),
    "worker-src": ("blob:",),
}
"""The keywords that are allowed besides hosts."""


@lru_cache(maxsize=8)
def sources_of(text: str) -> Mapping[str, tuple[str, ...]]:
    """Parse ``img-src https://tiles.example; script-src 'unsafe-eval'``; raises ValueError.

    No allowed source can end a directive or a header, or permit inline scripts.
    """
    found = dict[str, tuple[str, ...]]()
    for part in filter(str.strip, text.split(";")):
        directive, *sources = part.split()
        if directive not in DIRECTIVES:
            hint = did_you_mean(directive, DIRECTIVES) or ";"
            raise ValueError(f"nothing can be added to {directive!r}{hint} only to {', '.join(DIRECTIVES)}")
        if not sources:
            raise ValueError(f"{directive} names no source; write: {directive} https://host.example")
        for source in sources:
            _check_source(directive, source)
        found[directive] = (*found.get(directive, ()), *sources)
    return found


def _check_source(directive: str, source: str) -> None:
    keywords = _KEYWORDS.get(directive, ())
    if source in keywords or re.fullmatch(_HOST, source, re.ASCII | re.IGNORECASE):
        return
    if source.lower().strip("'") == "unsafe-inline":
        raise ValueError(f"{directive} 'unsafe-inline' would let names and descriptions run scripts")
    others = "".join(f" or {one}" for one in keywords)
    raise ValueError(f"{source!r} is no source of {directive}; write https://host.example{others}")
