"""The configuration: every setting of `mirror.toml` with its type, its default and one sentence about it.

The file of `mirror init`, `docs/configuration.md` and the hints of errors are derived from the declarations
below. Nothing here opens a network or a database.
"""

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from mirror.config_checks import NAME_SOME, complaints, workspace_complaint
from mirror.errors import ConfigError
from mirror.times import seconds_of

UpstreamKind = Literal["cloud", "datacenter", "legacy", "sandbox"]
RefsBy = Literal["api", "git", "none"]
AlertEvent = Literal[
    "success", "failure", "recovery", "brake",
    "tag-moved", "tag-gone", "main-forced", "branch-lost", "repository-gone", "made-public", "transferred",
]  # fmt: skip

DEFAULT_FILE = Path("mirror.toml")
CLOUD_URL = "https://api.bitbucket.org/2.0"
SANDBOX_PORT = 8002

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Concurrency = Annotated[int, Meta(ge=1, le=64)]
Port = Annotated[int, Meta(ge=0, le=65535)]
MOST_WORKERS = 64
Workers = Annotated[int, Meta(ge=1, le=MOST_WORKERS)]


class Duration(float):
    """Seconds, written ``30s``, ``15m``, ``1h`` or ``7d`` in the file."""


def about(text: str, example: object = None) -> Meta:
    """Describe a setting by a sentence, and by an example if its default shows too little."""
    return Meta(description=text, examples=None if example is None else [example])


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often and how long a request is repeated."""

    attempts: Annotated[Count, about("How often one request is sent at most.")] = 6
    first_delay: Annotated[Duration, about("The delay before the second attempt.")] = Duration(1)
    max_delay: Annotated[Duration, about("The longest delay between two attempts.")] = Duration(600)


class UpstreamConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[upstream]]``: a server to mirror, and how often; one section for each server."""

    name: Annotated[Name, about("A short name of your own.", "cloud")]
    kind: Annotated[UpstreamKind, about("What the server is.")] = "cloud"
    url: Annotated[str, about('The address of its API; "": the default of the kind.', CLOUD_URL)] = ""
    workspaces: Annotated[
        tuple[str, ...] | None,
        about(
            "The slugs of the workspaces or projects to mirror; omitted: the credential's own.",
            ["atlassian"],
        ),
    ] = None
    workspaces_from: Annotated[
        str,
        about("A file with their slugs, one on each line, in the place of `workspaces`.", "workspaces.txt"),
    ] = ""
    members: Annotated[
        bool,
        about(
            "Read the members of each workspace, so that they see its private repositories; a request each."
        ),
    ] = True
    credential: Annotated[
        str | None,
        about("Where the secret is: env:NAME or file:PATH; never the secret itself.", "env:BITBUCKET_TOKEN"),
    ] = None
    webhook_secret: Annotated[
        str | None,
        about(
            "Where the secret of its webhook is; the webhook's address is /-/webhook/NAME.",
            "env:BITBUCKET_WEBHOOK_SECRET",
        ),
    ] = None
    refs: Annotated[RefsBy, about("How branches and tags are read; git costs no API requests.")] = "api"
    requests_per_hour: Annotated[
        Count | None,
        about("Requests in any hour; omitted: what this credential is allowed, less a margin.", 950),
    ] = None
    concurrency: Annotated[Concurrency, about("Requests at the same time.")] = 4
    timeout: Annotated[Duration, about("How long one request may take.")] = Duration(30)
    retry: Annotated[Retry, about("How often a failed request is repeated, and after what delay.")] = Retry()
    overlap: Annotated[
        Duration, about("How far an incremental sync looks back before the last complete one.")
    ] = Duration(86_400)
    sweep_every: Annotated[Duration, about("The time between full listings, which find what is gone.")] = (
        Duration(7 * 86_400)
    )
    refs_every: Annotated[
        Duration, about("The age at which branches and tags are read again, changed or not.")
    ] = Duration(30 * 86_400)
    ask_forced: Annotated[
        bool,
        about("Ask whether moves of a main branch were forced, a request each; false: only webhooks say so."),
    ] = False
    absence_brake: Annotated[
        Share, about("The share of a workspace that may be marked as gone without confirmation.")
    ] = 0.10
    accept_missing: Annotated[
        tuple[str, ...], about("Repositories whose refusal (403, 404, 451) is not a failure.", ["owner/slug"])
    ] = ()
    schedule: Annotated[
        str, about('When to sync: five cron fields, or an interval like 15m; "": never by itself.')
    ] = "*/15 * * * *"
    sweep_schedule: Annotated[
        str, about('When to list everything; "": as sweep_every says.', "0 3 * * sun")
    ] = ""
    refs_schedule: Annotated[
        str, about('When to read branches and tags; "": with each sync.', "0 * * * *")
    ] = ""
    retry_schedule: Annotated[
        str, about('When to try again what failed; "": with each sync.', "*/5 * * * *")
    ] = ""
    verify_schedule: Annotated[str, about('When to compare rows with the upstream; "": never.')] = (
        "30 4 * * sun"
    )
    verify_sample: Annotated[Count, about("How many repositories a scheduled verify compares.")] = 20
    jitter: Annotated[Duration, about("The longest random delay of a scheduled start.")] = Duration(30)
    stale_after: Annotated[
        Duration, about("The age of the last complete sync that /-/health reports as stale.")
    ] = Duration(2 * 86_400)
    watch: Annotated[
        Share, about("The share of requests for workspaces where changes are likely; 0: none.")
    ] = 0.3
    watch_shortest: Annotated[Duration, about("The shortest time between two listings of one workspace.")] = (
        Duration(120)
    )


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[log]``: what the service logs."""

    format: Annotated[Literal["console", "json"], about("For people, or one JSON object a line.")] = "console"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], about("The lowest level that is logged.")
    ] = "info"


class AlertConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[alert]]``: who gets the results of syncs; each section has one of ping, url and command."""

    ping: Annotated[
        str,
        about(
            "An address to request; on failure with /fail appended. Or env:NAME, file:PATH.",
            "https://hc-ping.com/UUID",
        ),
    ] = ""
    url: Annotated[str, about("An address to post JSON to; or env:NAME, file:PATH.", "env:CHAT_WEBHOOK")] = ""
    command: Annotated[
        tuple[str, ...],
        about("A program that gets the same JSON as its standard input.", ["/usr/local/bin/page-me"]),
    ] = ()
    on: Annotated[
        tuple[AlertEvent, ...],
        about(
            "Which events are sent; []: success, failure, brake for a ping, else failure, recovery, brake.",
            ["failure", "recovery"],
        ),
    ] = ()

    @property
    def events(self) -> tuple[AlertEvent, ...]:
        """The events of this alert."""
        usual: tuple[AlertEvent, ...] = ("failure", "recovery", "brake")
        return self.on or (("success", "failure", "brake") if self.ping else usual)


class ServeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[serve]``: where the mirror answers, and whom it believes."""

    host: Annotated[str, about("The address to listen on.")] = "127.0.0.1"
    port: Annotated[Port, about("The port to listen on; 0: any free one.")] = 8001
    writes: Annotated[bool, about("Let tokens of scope write create, update, delete and fork upstream.")] = (
        False
    )
    trust_basic_user: Annotated[
        bool, about("Linux, loopback: trust the Basic user name that programs of this system user send.")
    ] = False
    read_only: Annotated[
        bool, about("Write nothing into the file: for a copy that newer copies replace.")
    ] = False
    workers: Annotated[Workers, about("How many processes answer, one for each core.")] = 1
    public_snapshot: Annotated[
        str,
        about(
            "A published file that is served beside the mirror; its tables and SQL are open to everybody.",
            "public/public.db",
        ),
    ] = ""
    public_url: Annotated[
        str,
        about(
            "Where a proxy publishes the mirror, with its path if it has one.",
            "https://code.example.com/mirror",
        ),
    ] = ""
    redirect_unmirrored: Annotated[
        bool, about("Send GET for what is not mirrored to the upstream (307) instead of 501.")
    ] = False
    csp: Annotated[
        str,
        about(
            "Sources that Datasette's pages may load from, for plugins, by directive.",
            "img-src https://*.tile.openstreetmap.org",
        ),
    ] = ""


class HistoryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[history]``: how long each recorded change is kept."""

    keep: Annotated[
        Duration,
        about("Older history is compacted to the first and last change of each day; 0s: all is kept.", "10y"),
    ] = Duration(0)
    schedule: Annotated[str, about("When the service compacts: five cron fields, or an interval.")] = (
        "40 3 * * *"
    )


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. `upstreams` is never empty: without any, the built-in sandbox is the upstream."""

    database: Annotated[str, about("The SQLite file of the mirror.")] = "data/mirror.db"
    file_mode: Annotated[str, about('The mode of new files; "0640" or "0660" opens them to their group.')] = (
        "0600"
    )
    timezone: Annotated[
        str, about('The time zone of the schedules; "": that of this machine.', "Europe/Amsterdam")
    ] = ""
    backup_schedule: Annotated[
        str,
        about('When the service copies the file: five cron fields, or an interval; "": never.', "30 2 * * *"),
    ] = ""
    backup_folder: Annotated[str, about("The folder of scheduled copies.")] = "backups"
    backup_keep: Annotated[Count, about("How many scheduled copies stay.")] = 7
    publish_schedule: Annotated[
        str,
        about("When the service publishes into public_snapshot: cron fields, or an interval.", "0 4 * * *"),
    ] = ""
    site_schedule: Annotated[
        str,
        about("When the service makes the site in site_folder: cron fields, or an interval.", "0 5 * * *"),
    ] = ""
    site_folder: Annotated[str, about("The folder of the scheduled static site.", "/srv/www")] = ""
    site_url: Annotated[
        str, about("Where that site will be, for its feed and sitemap.", "https://code.example.com/")
    ] = ""
    site_title: Annotated[str, about("What that site is called.")] = "Bitbucket mirror"
    export_schedule: Annotated[
        str, about("When the service exports into export_to: cron fields, or an interval.", "1h")
    ] = ""
    export_to: Annotated[
        str,
        about(
            "The lake that the service exports into: a folder, or s3://BUCKET/PATH.", "s3://lake/bitbucket"
        ),
    ] = ""
    export_public: Annotated[bool, about("Let the service export only what strangers may see.")] = False
    search_commits: Annotated[
        bool, about("Also find branches and tags by commit; the index takes about 7 bytes for each.")
    ] = True
    upstreams: tuple[UpstreamConfig, ...] = msgspec.field(default=(), name="upstream")
    serve: ServeConfig = ServeConfig()
    alerts: tuple[AlertConfig, ...] = msgspec.field(default=(), name="alert")
    log: LogConfig = LogConfig()
    history: HistoryConfig = HistoryConfig()

    @property
    def mode(self) -> int:
        """The mode of new files, as a number."""
        return int(self.file_mode, 8)


LARGEST_FILE = 10_000_000
"""Characters of a configuration, and of a list of workspaces."""

MOST_PARTS = 100  # of a key; what settings have is two

Section = TypeVar("Section", UpstreamConfig, AlertConfig)

BUILT_IN = Config(
    # Whole syncs each minute, no watch runs: the sandbox has no budget to save.
    upstreams=(
        UpstreamConfig(name="sandbox", kind="sandbox", schedule="* * * * *", jitter=Duration(0), watch=0),
    )
)


def read_config(path: Path | None) -> Config:
    """Read the file; None means `mirror.toml` if it is there, else the built-in sandbox.

    Paths in it are relative to its folder. Raises a ConfigError that names the file, line, key and remedy.
    """
    if path is None and not DEFAULT_FILE.exists():
        return BUILT_IN
    path = path or DEFAULT_FILE
    try:
        text = _text_of(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `mirror init` writes one to start from") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not text.strip() and path.is_file():  # such as a full disk leaves: the sandbox is not meant
        raise ConfigError(f"{path}: is empty; put its text back, or remove it for the built-in sandbox")
    return _placed(from_toml(text, where=str(path)), path.parent)


def _text_of(path: Path) -> str:
    """Read a small file of text; raises OSError, UnicodeDecodeError and ConfigError."""
    # A device such as /dev/zero has no end. A pipe may be meant, but not one that nobody writes into.
    # Notepad and PowerShell begin a file with a byte order mark.
    with open(path, encoding="utf-8-sig", opener=_without_waiting) as file:
        os.set_blocking(file.fileno(), True)
        text = file.read(LARGEST_FILE + 1)
        if not text and stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            raise ConfigError(f"{path}: a pipe that nobody writes into; give a file")
    if len(text) > LARGEST_FILE:
        raise ConfigError(f"{path}: has more than {LARGEST_FILE:,} characters; is it the right file?")
    return text


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _placed(config: Config, folder: Path) -> Config:
    """Make paths relative to the folder of the configuration, wherever the program was started."""

    def at(text: str) -> str:
        return str(folder / os.path.expanduser(text))  # noqa: PTH111 - leaves an unknown user's `~` as it is

    def source(text: str | None) -> str | None:
        scheme, _, place = (text or "").partition(":")
        return f"file:{at(place)}" if scheme == "file" else text

    def named(one: UpstreamConfig) -> UpstreamConfig:
        if not one.workspaces_from:
            return one
        return msgspec.structs.replace(one, workspaces=_names_in(Path(at(one.workspaces_from)), one.name))

    def sources(section: Section, *keys: str) -> Section:
        return msgspec.structs.replace(section, **{key: source(getattr(section, key)) for key in keys})

    def path(text: str) -> str:
        return at(text) if text else ""

    serve = {"public_snapshot": path(config.serve.public_snapshot)}
    return msgspec.structs.replace(
        config,
        database=at(config.database),
        serve=msgspec.structs.replace(config.serve, **serve),
        backup_folder=at(config.backup_folder),
        site_folder=path(config.site_folder),
        export_to=config.export_to if "://" in config.export_to else path(config.export_to),
        upstreams=tuple(sources(named(one), "credential", "webhook_secret") for one in config.upstreams),
        alerts=tuple(sources(one, "ping", "url") for one in config.alerts),
    )


def _names_in(path: Path, upstream: str) -> tuple[str, ...]:
    """Read the slugs of workspaces from a file; `#` begins a comment. Raises ConfigError."""
    try:
        lines = _text_of(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"upstream {upstream}: workspaces_from: {path}: {reason}") from error
    names = dict.fromkeys(name for line in lines if (name := line.partition("#")[0].strip()))
    for name in names:
        if complaint := workspace_complaint(name):
            raise ConfigError(f"upstream {upstream}: workspaces_from: {path}: {complaint}")
    if not names:
        raise ConfigError(f"upstream {upstream}: workspaces_from: {path}: names no workspace; {NAME_SOME}")
    return tuple(names)


_TOML_RULES = "strings need quotes, lists need brackets, each setting and each [section] stands only once"


def from_toml(text: str, *, where: str = "mirror.toml") -> Config:
    """Decode and check the text of a configuration; raises ConfigError as `read_config` does."""
    if any(map(_has_deep_key, text.split("\n"))):  # Python takes 20 seconds for a key of 20,000 parts
        raise ConfigError(f"{where}: a key has more than {MOST_PARTS} parts; no setting has so many")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}; {_TOML_RULES}") from error
    except (ValueError, RecursionError):  # of a number of thousands of digits; of lists in lists
        raise ConfigError(f"{where}: a number is too long, or lists are nested too deeply") from None
    try:
        config = msgspec.convert(data, Config, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise _mistake(str(error), text, where) from error
    if "upstream" in data and not config.upstreams:  # of a program that writes configurations, for instance
        raise _mistake(f"{NO_UPSTREAM} - at `$.upstream`", text, where)
    for path, complaint in complaints(config):
        raise _mistake(f"{complaint} - at `{path}`", text, where)
    return config if config.upstreams else msgspec.structs.replace(config, upstreams=BUILT_IN.upstreams)


NO_UPSTREAM = "is empty; write an [[upstream]] section, or leave the setting out for the built-in sandbox"


def _has_deep_key(line: str) -> bool:
    """Return whether a line of TOML has a key of more than MOST_PARTS parts."""
    if line.count(".") < MOST_PARTS:
        return False
    part = r"""(?:[\w-]++|"[^"]*+"|'[^']*+')[ \t]*+"""
    return re.search(rf"(?<![\w-]){part}(?:\.[ \t]*+{part}){{{MOST_PARTS}}}", line) is not None


def _mistake(message: str, text: str, where: str) -> ConfigError:
    from mirror.settings import explained  # noqa: PLC0415 - most files hold no mistake

    return ConfigError(explained(message, text, where, Config))


def _decode(kind: type, value: Any) -> Any:
    """Decode the types that TOML does not have."""
    if kind is Duration and isinstance(value, str):
        return Duration(seconds_of(value))
    raise ValueError(f'{value!r} is not a duration; write it in quotes, like "30s", "15m", "1h" or "7d"')
