"""The configuration: what `mirror.toml` may say, what is assumed where it says nothing, and what is wrong.

Every setting is a field below with its default; the template of `mirror init` and the error messages
derive from them. Nothing here opens a network or a database.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec

from mirror.errors import ConfigError
from mirror.times import seconds_of

Kind = Literal["cloud", "datacenter", "legacy", "sandbox"]
RefsBy = Literal["api", "git", "none"]
AlertEvent = Literal["success", "failure", "recovery", "brake"]

DEFAULT_FILE = Path("mirror.toml")
CLOUD_URL = "https://api.bitbucket.org/2.0"
SANDBOX_PORT = 8002

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Duration(float):
    """Seconds, written ``30s``, ``15m``, ``1h`` or ``7d`` in the file."""


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How patiently one request is repeated: tries in all, and the delays between them in seconds."""

    attempts: Count = 6
    first_delay: Duration = Duration(1)
    max_delay: Duration = Duration(600)


class UpstreamConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[upstream]]``.

    `url` "" means the default of the kind, `workspaces` None the caller's own, `requests_per_hour` None
    what Bitbucket allows this kind of credential, less a margin. Schedules are five cron fields or an
    interval (``15m``), "" means never by itself: sweeps and refs that are due are part of each sync then.
    `accept_missing` names repositories (``owner/slug``) whose refusal (403, 404, 451) keeps no run from being
    complete.
    """

    name: Name
    kind: Kind = "cloud"
    url: str = ""
    workspaces: tuple[str, ...] | None = None
    credential: str | None = None
    webhook_secret: str | None = None
    refs: RefsBy = "api"
    requests_per_hour: Count | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    timeout: Duration = Duration(30)
    retry: Retry = Retry()
    overlap: Duration = Duration(86_400)
    sweep_every: Duration = Duration(7 * 86_400)
    refs_every: Duration = Duration(30 * 86_400)
    absence_brake: Share = 0.10
    accept_missing: tuple[str, ...] = ()
    schedule: str = "*/15 * * * *"
    sweep_schedule: str = ""
    refs_schedule: str = ""
    retry_schedule: str = ""
    verify_schedule: str = "30 4 * * sun"
    verify_sample: Count = 20
    jitter: Duration = Duration(30)
    stale_after: Duration = Duration(2 * 86_400)
    watch: Share = 0.3
    watch_shortest: Duration = Duration(120)


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[log]``: what the service says, to people or to programs."""

    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class AlertConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[alert]]``: an address to ping, an address that takes JSON, or a command; one of the three.

    Addresses may be written as such, or as ``env:NAME`` or ``file:PATH``. `on` () means what suits the form:
    a ping tells of successes and failures, the others of whatever is no success.
    """

    ping: str = ""
    url: str = ""
    command: tuple[str, ...] = ()
    on: tuple[AlertEvent, ...] = ()

    @property
    def events(self) -> tuple[AlertEvent, ...]:
        """What it is told of."""
        usual: tuple[AlertEvent, ...] = ("failure", "recovery", "brake")
        return self.on or (("success", "failure", "brake") if self.ping else usual)


class ServeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[serve]``: where and to whom the mirror answers."""

    host: str = "127.0.0.1"
    port: Port = 8001
    writes: bool = False
    trust_basic_user: bool = False
    public_url: str = ""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. `upstreams` is never empty: without any, the built-in sandbox is the upstream.

    `timezone` is that of the schedules, "" the machine's own. `file_mode` is that of new files, in octal.
    """

    database: str = "data/mirror.db"
    file_mode: str = "0600"
    timezone: str = ""
    upstreams: tuple[UpstreamConfig, ...] = msgspec.field(default=(), name="upstream")
    serve: ServeConfig = ServeConfig()
    log: LogConfig = LogConfig()
    alerts: tuple[AlertConfig, ...] = msgspec.field(default=(), name="alert")

    @property
    def mode(self) -> int:
        """The mode of new files, as the system takes it."""
        return int(self.file_mode, 8)


Section = TypeVar("Section", UpstreamConfig, AlertConfig)

BUILT_IN = Config(
    upstreams=(UpstreamConfig(name="sandbox", kind="sandbox", schedule="*/2 * * * *", jitter=Duration(0)),)
)


def read_config(path: Path | None) -> Config:
    """Read the file; None means `mirror.toml` if it is there, else the built-in sandbox.

    Paths that it names are relative to its folder, wherever the program was started.

    Raises ConfigError that names the file, the line, the key and the remedy.
    """
    if path is None and not DEFAULT_FILE.exists():
        return BUILT_IN
    path = path or DEFAULT_FILE
    try:
        text = path.read_text("utf-8-sig")  # Notepad and PowerShell begin a file with a byte order mark
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `mirror init` writes one to start from") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return _placed(from_toml(text, where=str(path)), path.parent)


def _placed(config: Config, folder: Path) -> Config:
    """Make the paths of a configuration those of files in its folder, where they are not absolute."""

    def source(text: str | None) -> str | None:
        scheme, _, place = (text or "").partition(":")
        return f"file:{folder / place}" if scheme == "file" else text

    def sources(section: Section, *keys: str) -> Section:
        return msgspec.structs.replace(section, **{key: source(getattr(section, key)) for key in keys})

    return msgspec.structs.replace(
        config,
        database=str(folder / config.database),
        upstreams=tuple(sources(one, "credential", "webhook_secret") for one in config.upstreams),
        alerts=tuple(sources(one, "ping", "url") for one in config.alerts),
    )


def from_toml(text: str, *, where: str = "mirror.toml") -> Config:
    """Decode and check the text of a configuration; raises ConfigError as `read_config` does."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}; strings need quotes, lists need brackets") from error
    try:
        config = msgspec.convert(data, Config, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigError(_explained(str(error), text, where)) from error
    for path, complaint in _complaints(config):
        raise ConfigError(_explained(f"{complaint} - at `{path}`", text, where))
    return config if config.upstreams else msgspec.structs.replace(config, upstreams=BUILT_IN.upstreams)


def _decode(kind: type, value: Any) -> Any:
    """Read the types that TOML has no notion of."""
    if kind is Duration and isinstance(value, str):
        return Duration(seconds_of(value))
    raise ValueError(f'{value!r} is no duration; write it in quotes, like "30s", "15m", "1h" or "7d"')


def _complaints(config: Config) -> Iterator[tuple[str, str]]:
    """Yield what no single field can tell: the path of a setting, and what is wrong with it."""
    try:
        ZoneInfo(config.timezone or "UTC")
    except (KeyError, ValueError, OSError):
        yield "$.timezone", f'{config.timezone!r} is no time zone; write it like "Europe/Amsterdam"'
    if not re.fullmatch(r"0?6[046]{2}", config.file_mode):
        yield "$.file_mode", f'{config.file_mode!r} is no mode of a file; write "0600", or "0660" for a group'
    if re.match(r"\s*$|:memory:$|file:", config.database) or "\0" in config.database:
        yield "$.database", f'{config.database!r} is no path of a file; write it like "data/mirror.db"'
    yield from _alert_complaints(config)
    seen = set[str]()
    for index, upstream in enumerate(config.upstreams):
        path = f"$.upstream[{index}]"
        if upstream.name in seen:
            yield f"{path}.name", f"{upstream.name!r} is the name of another upstream; give each its own"
        seen.add(upstream.name)
        url = urlsplit(upstream.url)
        if upstream.url and (url.scheme not in ("http", "https") or not url.hostname):
            yield f"{path}.url", f"{upstream.url!r} is no web address; it begins with https:// or http://"
        if url.username or url.password:
            yield f"{path}.url", "an address must hold no login; put it where `credential` points"
        if not upstream.url and upstream.kind in ("datacenter", "legacy"):
            yield f"{path}.kind", f"kind {upstream.kind!r} needs a url"
        yield from _secret_complaints(upstream, path)
        yield from _name_complaints(upstream, path)


def _name_complaints(upstream: UpstreamConfig, path: str) -> Iterator[tuple[str, str]]:
    for workspace in upstream.workspaces or ():
        if not re.fullmatch(r"[^\s/?#]+", workspace):
            yield f"{path}.workspaces", f"{workspace!r} is no workspace; give the slug, as in its address"
    for name in upstream.accept_missing:
        if not re.fullmatch(r"[^\s/?#]+/[^\s/?#]+", name):
            yield f"{path}.accept_missing", f'{name!r} is no repository; write it like "owner/slug"'


def place_complaint(place: str) -> str | None:
    """Say what is wrong with an address that alerts go to, without repeating it; None for a good one."""
    try:
        url = urlsplit(place)
        _ = url.port
    except ValueError:
        return "is no web address"
    if url.scheme not in ("http", "https") or not url.hostname:
        return "is no web address; it begins with https:// or http://"
    if url.username is not None or url.password is not None:
        return "holds a user and a password; alerts send none, use an address that needs no login"
    return None


def _alert_complaints(config: Config) -> Iterator[tuple[str, str]]:
    for index, alert in enumerate(config.alerts):
        path = f"$.alert[{index}]"
        if sum(bool(way) for way in (alert.ping, alert.url, alert.command)) != 1:
            yield path, "this section needs one of ping, url and command"
        for key in ("ping", "url"):
            place = getattr(alert, key)
            if not place or re.match(r"env:[A-Za-z_]\w*$|file:.", place):
                continue
            if not re.match(r"https?://[^\s/]", place):
                yield f"{path}.{key}", 'must be a web address, or say where one is: "env:NAME" or "file:PATH"'
            elif complaint := place_complaint(place):
                yield f"{path}.{key}", complaint


def _secret_complaints(upstream: UpstreamConfig, path: str) -> Iterator[tuple[str, str]]:
    for key in ("credential", "webhook_secret"):
        source = getattr(upstream, key)
        if source is not None and not re.fullmatch(r"(env:[A-Za-z_]\w*|file:.+)", source):
            yield (
                f"{path}.{key}",
                'must say where the secret is: "env:NAME" or "file:PATH"; never the secret itself',
            )


_UNKNOWN = re.compile(r"contains unknown field `(.+?)`")


def _explained(message: str, text: str, where: str) -> str:
    """Turn a validator's message into one that names the line, the key and the remedy."""
    complaint, _, path = message.partition(" - at `")
    path = path.rstrip("`")
    unknown = _UNKNOWN.search(complaint)
    key = unknown[1] if unknown else path.rpartition(".")[2].partition("[")[0]
    line = _line_of(text, path, key)
    spot = f"{where}, line {line}" if line else where
    if unknown:
        known = ", ".join(sorted(_known(path)))
        return f"{spot}: unknown setting {key!r}; known here: {known}"
    if complaint.startswith("Object missing required field"):
        return f"{spot}: {complaint.replace('Object missing required field', 'this section needs')}"
    return f"{spot}: {key}: {complaint}"


def _known(path: str) -> tuple[str, ...]:
    """Name the settings that a section may hold."""
    section = path.lstrip("$.").split(".")
    sections: dict[str, type[msgspec.Struct]] = {
        "upstream": UpstreamConfig,
        "serve": ServeConfig,
        "log": LogConfig,
        "alert": AlertConfig,
    }
    struct = Retry if section[-1] == "retry" else sections.get(section[0].partition("[")[0], Config)
    return tuple(field.encode_name for field in msgspec.structs.fields(struct))


def _line_of(text: str, path: str, key: str) -> int | None:
    """Find the line of a key: within its section first, counting ``[[upstream]]`` headers."""
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
