"""Check a configuration: each complaint names the file, the line, the key and the remedy.

Also lists the files of a configuration that are open to other users of the machine.
"""

import logging
import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec

from mirror.content_policy import sources_of
from mirror.readable import did_you_mean
from mirror.settings import Setting, settings_of, toml_text

if TYPE_CHECKING:
    from mirror.config import Config, UpstreamConfig

OTHERS = 0o077

log = logging.getLogger(__name__)


def complaints(config: "Config") -> Iterator[tuple[str, str]]:
    """Yield faults that no field can check alone: the path of a setting, and the complaint."""
    try:
        ZoneInfo(config.timezone or "UTC")
    except (KeyError, ValueError, OSError):
        yield "$.timezone", f"{config.timezone!r} is not a time zone"
    if not re.fullmatch(r"0?6[046]{2}", config.file_mode):
        yield "$.file_mode", f'{config.file_mode!r} is not a file mode; write "0600", or "0660" for a group'
    if re.match(r"\s*$|:memory:$|file:", config.database) or "\0" in config.database:
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
        if upstream.timeout <= 0:
            yield f"{path}.timeout", "must be longer than 0s"
        if not upstream.url and upstream.kind in ("datacenter", "legacy"):
            yield f"{path}.kind", f"kind {upstream.kind!r} needs a url"
        yield from _secret_complaints(upstream, path)
        yield from _name_complaints(upstream, path)


def _serve_complaints(config: "Config") -> Iterator[tuple[str, str]]:
    if config.serve.read_only and config.serve.writes:
        yield "$.serve.writes", "a server that is read_only passes no writes on; remove one of the two"
    if config.serve.public_snapshot and config.serve.public_snapshot == config.database:
        yield "$.serve.public_snapshot", "is the mirror itself; name a file of `mirror publish`"
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
        yield path, "is not a web address"  # not shown: it may contain a login that cannot be removed
        return
    if url.username is not None or url.password is not None:
        yield path, "an address must hold no login; put it where `credential` points"
    elif url.scheme not in ("http", "https") or not url.hostname or port == 0:
        yield path, f"{text!r} is not a web address; it begins with https:// or http://"
    elif re.search(r"[\s?#\x00-\x1f]", text):
        yield path, "an address must hold no spaces, no ? and no #"


def _name_complaints(upstream: "UpstreamConfig", path: str) -> Iterator[tuple[str, str]]:
    for workspace in upstream.workspaces or ():
        if complaint := workspace_complaint(workspace):
            yield f"{path}.workspaces", complaint
    if upstream.workspaces is not None and upstream.workspaces_from:
        yield f"{path}.workspaces_from", "the workspaces are named already; remove one of the two lines"
    for name in upstream.accept_missing:
        if not re.fullmatch(r"[^\s/?#]+/[^\s/?#]+", name):
            yield f"{path}.accept_missing", f"{name!r} is not a repository name"


def workspace_complaint(name: str) -> str | None:
    """Return the complaint about the slug of a workspace; None for a valid one."""
    good = re.fullmatch(r"[^\s/?#]+", name)
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


_UNKNOWN = re.compile(r"contains unknown field `(.+?)`")


def explained(message: str, text: str, where: str, root: type[msgspec.Struct]) -> str:
    """Turn a message of the validator into one with the line, the key and the remedy.

    `message` ends with the path of the value, as msgspec's messages do; `text` is the whole file and `where`
    its name; `root` declares the settings.
    """
    complaint, _, path = message.partition(" - at `")
    path = path.rstrip("`")
    unknown = _UNKNOWN.search(complaint)
    key = unknown[1] if unknown else path.rpartition(".")[2].partition("[")[0]
    line = _line_of(text, path, key)
    spot = f"{where}, line {line}" if line else where
    if unknown:
        known = sorted(_known(path, root))
        near = did_you_mean(key, known)
        return f"{spot}: unknown setting {key!r}{near or ';'} known here: {', '.join(known)}"
    if complaint.startswith("Object missing required field"):
        return f"{spot}: {complaint.replace('Object missing required field', 'this section needs')}"
    setting = _known(path.rpartition(".")[0], root).get(key)
    value = _value_at(text, path)
    if setting and complaint.startswith("Invalid enum value"):
        return f"{spot}: {key}: {_not_allowed(setting, value)}"
    if setting and (meant := _meant(setting, value)) is not None:
        return f"{spot}: {key}: {complaint}; did you mean {meant}?"
    return f"{spot}: {key}: {complaint}{_hint(setting) if setting and ';' not in complaint else ''}"


def _not_allowed(setting: Setting, value: Any) -> str:
    """Refuse a value that is not allowed, and suggest the nearest allowed one."""
    allowed = setting.kind.removeprefix("list of: ").split(" | ")
    near = did_you_mean(str(value), allowed) or ";"
    return f"{value!r} is not allowed{near} allowed: {', '.join(allowed)}"


_SECRETS = frozenset({"credential", "webhook_secret", "ping", "url"})
"""Settings whose value is not shown: it may be a secret by mistake."""


def _meant(setting: Setting, value: Any) -> str | None:
    """Return a setting as it was probably meant, with brackets or quotes added or removed."""
    if setting.name in _SECRETS:
        return None
    if isinstance(value, dict):
        return f"[[{setting.name}]]" if setting.is_repeated and setting.struct else None
    meant: Any = None
    kind = setting.kind
    if kind.startswith("list of: ") and isinstance(value, str) and value:
        meant = [value]
    elif kind == "true or false" and str(value).lower() in _BOOLEANS:
        meant = _BOOLEANS[str(value).lower()]
    elif kind.startswith(("whole number", "number")) and isinstance(value, str) and value.isdecimal():
        meant = int(value)
    elif kind == "duration" and re.fullmatch(r"\d{1,9}", str(value)):
        meant = f"{value}s"
    elif kind == "text" and isinstance(value, int | float) and not isinstance(value, bool):
        meant = str(value)
    return None if meant is None else f"{setting.name} = {toml_text(meant)}"


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False, "no": False, "off": False, "0": False
}  # fmt: skip


def _value_at(text: str, path: str) -> Any:
    """Return the value at a path of a TOML text; None if there is none."""
    value: Any = tomllib.loads(text)
    for name, number in re.findall(r"(\w+)|\[(\d+)\]", path.removeprefix("$")):
        try:
            value = value[name] if name else value[int(number)]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _hint(setting: Setting) -> str:
    """Show how to write a setting, by its declaration."""
    if setting.struct:
        return ""
    about = "" if setting.kind == "text" else f" ({setting.kind})"
    return f"; write it like {setting.name} = {setting.example}{about}"


def _known(path: str, root: type[msgspec.Struct]) -> dict[str, Setting]:
    """Return the settings of the section at a path."""
    found = {setting.name: setting for setting in settings_of(root)}
    for part in re.findall(r"\w+", re.sub(r"\[\d+\]", "", path)):
        setting = found.get(part)
        if setting and setting.struct:
            found = {each.name: each for each in settings_of(setting.struct)}
    return found


def _line_of(text: str, path: str, key: str) -> int | None:
    """Return the line of a key in its section; counts ``[[upstream]]`` headers."""
    section = re.match(r"\$\.(\w+)(?:\[(\d+)\])?", path)
    wanted = (section[1], int(section[2] or 0)) if section else ("", 0)
    here, counts, header = ("", 0), dict[str, int](), None
    for number, line in enumerate(text.splitlines(), 1):
        heading = re.match(r"\s*\[\[?\s*(\w+)", line)
        if heading:
            counts[heading[1]] = counts.get(heading[1], -1) + 1
            here = (heading[1], counts[heading[1]])
            header = number if here == wanted else header
        if re.match(rf"\s*(.*[{{,.]\s*)?[\"']?{re.escape(key)}[\"']?\s*=", line) and (
            here == wanted or not wanted[0] or (here[0] == "" and wanted[0] == key)
        ):
            return number
    return header


def warn_of_open_files(config: "Config") -> None:
    """Log a line for each file that is open to others."""
    for line in open_files(config):
        log.warning(line)


def open_files(config: "Config") -> Iterator[str]:
    """Yield a sentence with the remedy for each file that other users may read or write."""
    database = Path(config.database)
    for path in (database, database.with_name(f"{database.name}-wal")):
        if mode := _open_mode(path, config):
            yield (
                f"{path} is open to other users (mode {mode:04o}): chmod {config.file_mode} {path},"
                " or say so by file_mode"
            )
    for path in dict.fromkeys(_secrets(config)):
        if mode := _open_mode(path, config):
            yield f"{path} holds a secret and is open to other users (mode {mode:04o}): chmod 600 {path}"


def _open_mode(path: Path, config: "Config") -> int:
    """Return the mode of a file that is more open than configured, else 0; also 0 if it is unknown.

    A folder or a device is named by mistake, and its mode must not be changed.
    """
    try:
        state = path.stat().st_mode
    except (OSError, ValueError):
        return 0
    mode = stat.S_IMODE(state) & 0o777 if stat.S_ISREG(state) else 0
    return mode if mode & OTHERS & ~config.mode else 0


def _secrets(config: "Config") -> Iterator[Path]:
    sources = [
        *(source for one in config.upstreams for source in (one.credential, one.webhook_secret)),
        *(source for one in config.alerts for source in (one.ping, one.url)),
    ]
    yield from (
        Path(source.removeprefix("file:")) for source in sources if source and source.startswith("file:")
    )
