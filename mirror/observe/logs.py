"""Logs: lines for people or JSON for programs, one for each run, and no secret in any of them."""

import contextlib
import json
import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from mirror.config import Config, LogConfig
from mirror.credentials import Redact, read_credential, read_secret, redacting
from mirror.errors import ConfigError
from mirror.times import to_text
from mirror.zones import local

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; anything else was said with `extra`."""


def set_up(config: LogConfig, secrets: Iterable[str] = ()) -> None:
    """Send what is logged to standard error in the configured form, with these secrets taken out."""
    redact = redacting(secrets)
    handler = _ToStandardError()
    handler.setFormatter(JsonLines(redact) if config.format == "json" else ConsoleLines(redact))
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, _ToStandardError)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # of libraries, only what is wrong: they log addresses
    logging.getLogger("mirror").setLevel(config.level.upper())


def secrets_of(config: Config) -> list[str]:
    """Collect the secrets that a configuration points to, those that can be read here, in every spelling."""
    found = list[str]()
    for upstream in config.upstreams:
        try:
            credential = read_credential(upstream.credential)
        except ConfigError:
            continue
        basic = credential.basic.removeprefix("Basic ")
        found += [credential.secret, basic] if credential.secret else []
    for upstream in config.upstreams:
        try:
            found += [read_secret(upstream.webhook_secret)] if upstream.webhook_secret else []
        except ConfigError:
            continue
    return found


class ConsoleLines(logging.Formatter):
    """``12:00:01 box complete; ...`` for people, with the level where something is wrong."""

    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        when = local(datetime.fromtimestamp(record.created, UTC))
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        lines = [f"{when:%H:%M:%S} {level}{record.getMessage()}"]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        return self._redact("\n".join(lines))


class JsonLines(logging.Formatter):
    """One object a line for programs; what was said with `extra` are members of it."""

    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        line: dict[str, Any] = {
            "at": to_text(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _PLAIN},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # Once before JSON escapes it a second time, and once after for what only then became text.
        clean = {
            name: self._redact(value) if isinstance(value, str) else value for name, value in line.items()
        }
        return self._redact(json.dumps(clean, ensure_ascii=False, default=str))


class _ToStandardError(logging.Handler):
    """Writes to what standard error is just now: a progress bar on a terminal takes its place for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a terminal that went away is no reason to fail."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
