"""Logs: lines for people or JSON for programs, one line for each run, without secrets."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from mirror.config import Config, LogConfig
from mirror.credentials import Redact, read_credential, read_secret, redacting
from mirror.errors import ConfigError
from mirror.queries.crawl import line_of
from mirror.readable import requests_text
from mirror.report import Reporter, RunCounts, Summary
from mirror.store.crawl_state import Progress
from mirror.times import age_text, time_text, to_text

# The attributes of every record. All others come from `extra`.
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

log = logging.getLogger("mirror.runs")
MINUTE = 60.0  # seconds between two lines about the progress of a run

_LEVELS = {"failed": logging.ERROR, "incomplete": logging.WARNING}


def set_up(config: LogConfig, secrets: Iterable[str] = ()) -> None:
    """Log to standard error in the configured format, with `secrets` removed from every line."""
    redact = redacting(secrets)
    handler = _ToStandardError()
    handler.setFormatter(JsonLines(redact) if config.format == "json" else ConsoleLines(redact))
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, _ToStandardError)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # libraries log addresses, so only their warnings pass
    logging.getLogger("mirror").setLevel(config.level.upper())


def secrets_of(config: Config) -> list[str]:
    """Return the secrets that a configuration refers to, if they can be read here."""
    found = list[str]()
    for upstream in config.upstreams:
        try:
            credential = read_credential(upstream.credential)
        except ConfigError:
            continue
        basic = credential.basic.removeprefix("Basic ").rstrip("=")
        found += [credential.secret, basic] if credential.secret else []
    for upstream in config.upstreams:
        try:
            found += [read_secret(upstream.webhook_secret)] if upstream.webhook_secret else []
        except ConfigError:
            continue
    return found


class _Lines(logging.Formatter):
    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact


class ConsoleLines(_Lines):
    """Lines for people, like ``12:00:01 CET box complete; ...``; warnings and above show their level."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        when = time_text(datetime.fromtimestamp(record.created, UTC))
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        lines = [f"{when} {level}{record.getMessage()}"]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        return self._redact("\n".join(lines))


class JsonLines(_Lines):
    """One JSON object a line, for programs, with the members of `extra`."""

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
        # Before JSON escapes the text, and again after, for values that only then become text.
        clean = {
            name: self._redact(value) if isinstance(value, str) else value for name, value in line.items()
        }
        return self._redact(json.dumps(clean, ensure_ascii=False, default=str))


class _ToStandardError(logging.Handler):
    """Writes to the current standard error."""

    # A progress bar replaces it for a while, so it is looked up for each line.
    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a terminal that is gone is no error."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()


def log_run(summary: Summary) -> None:
    """Log a run in one line."""
    fields = {
        "upstream": summary.upstream,
        "kind": summary.kind,
        "state": summary.state,
        "seconds": round(summary.seconds, 3),
        "error": summary.error,
        **msgspec.structs.asdict(summary.counts),
        "failures": len(summary.failures),
        "missing": summary.missing,
    }
    log.log(_level(summary), "%s", run_line(summary), extra=fields)


def _level(summary: Summary) -> int:
    """Return the level for a run: what others could not read is no trouble of one for hints or a watch."""
    if summary.kind not in ("marked", "watch") or summary.state == "failed" or summary.failures:
        return _LEVELS.get(summary.state, logging.INFO)
    counts = summary.counts
    news = counts.repositories_new + counts.repositories_changed + counts.repositories_gone
    news += counts.refs_new + counts.refs_changed + counts.refs_gone
    return logging.INFO if news or summary.kind == "marked" else logging.DEBUG


def run_line(summary: Summary) -> str:
    """Describe a run in one line."""
    counts = summary.counts
    rows, refs = row_counts(counts)
    asked = f"{requests_text(counts.requests + counts.git_requests)} in {seconds_text(summary.seconds)}"
    failed = f"; {len(summary.failures):,} failed" if summary.failures else ""
    known = summary.missing - summary.refs_waiting
    failed += f"; {known:,} missing, see mirror status" if known else ""
    failed += f"; refs of {summary.refs_waiting:,} waiting" if summary.refs_waiting else ""
    error = f": {summary.error}" if summary.error else ""
    kind = "" if summary.kind in ("full", "incremental") else f" {summary.kind}"
    head = f"{summary.upstream}{kind} {summary.state}{error}"
    return f"{head}; repositories {rows}; refs {refs}; {asked}{failed}"


def row_counts(counts: RunCounts) -> tuple[str, str]:
    """Describe the counts of repositories and of refs."""
    new, changed, gone = counts.repositories_new, counts.repositories_changed, counts.repositories_gone
    refs = f"{counts.refs_new:,} new, {counts.refs_changed:,} moved, {counts.refs_gone:,} gone"
    return f"{new:,} new, {changed:,} changed, {gone:,} gone", refs


def seconds_text(seconds: float) -> str:
    """Format a duration: ``0.4 s``, ``12 s``, ``3 min``."""
    return f"{seconds:.1f} s" if seconds < 10 else age_text(seconds)


class EveryMinute:
    """Reports when a minute has passed, since the last report or the beginning."""

    def __init__(self, stopwatch: Callable[[], float] = time.monotonic) -> None:
        self._stopwatch = stopwatch
        self._began = stopwatch()

    def begin(self) -> None:
        """Begin a minute."""
        self._began = self._stopwatch()

    def is_over(self) -> bool:
        """Return whether the minute is over; if so, begin another one."""
        if self._stopwatch() - self._began < MINUTE:
            return False
        self.begin()
        return True


@dataclass
class Logged(Reporter):
    """A reporter that logs, and passes everything on to one that shows progress."""

    shown: Reporter | None = None
    stopwatch: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._inner: Reporter = self.shown or Reporter()
        self._waits = ""
        self._minute = EveryMinute(self.stopwatch)
        self._run: int | None = None

    def phase(self, what: str, total: int | None) -> None:
        """Log a phase, at level debug."""
        self._inner.phase(what, total)
        if total != 0:
            log.debug("%s%s", what, f": {total:,}" if total is not None else "")

    def progress(self, progress: Progress) -> None:
        """Show the progress, and log it once a minute of a run, across its phases."""
        self._inner.progress(progress)
        if progress.run_id != self._run:
            self._run = progress.run_id
            self._minute.begin()
        if self._minute.is_over():
            log.info("%s", line_of(progress), extra=msgspec.structs.asdict(progress))

    def waiting(self, seconds: float, why: str) -> None:
        """Log the reason of a wait, once."""
        self._inner.waiting(seconds, why)
        if why != self._waits:
            self._waits = why
            log.info("waiting %s: %s", age_text(seconds), why)

    def note(self, text: str) -> None:
        """Log a note."""
        log.info("%s", text)

    def fault(self, text: str) -> None:
        """Log a fault, which a higher level of the log shows too."""
        log.error("%s", text)
