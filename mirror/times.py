"""Moments and durations, and their text forms.

In the mirror every moment is ``YYYY-MM-DDTHH:MM:SS.ffffffZ``, UTC, so that the order of the text is the
order of time. Durations are written by people as ``30s``, ``15m``, ``1h``, ``7d``.
"""

import os
import re
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from io import BytesIO
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

Clock = Callable[[], datetime]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "y": 365 * 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdy])")
LONGEST = 365_000 * 86_400
_DAY, _YEAR = 86_400, 365.25 * 86_400
_AGES = (
    ("s", 1, 120), ("min", 60, 7200), ("h", 3600, 2 * _DAY), ("days", _DAY, _YEAR / 6),
    ("months", _YEAR / 12, 2 * _YEAR), ("years", _YEAR, inf),
)  # fmt: skip
"""Units of ages: name, length, and the age from which the next unit is used, in seconds."""
_FRACTION = re.compile(r"\.(\d{1,9})")


def utc_now() -> datetime:
    """Return the current time; the default `Clock`."""
    return datetime.now(UTC)


def to_text(moment: datetime) -> str:
    """Format a moment as the mirror stores it; without a zone it is UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    elif moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return f"{moment.isoformat(timespec='microseconds')[:-6]}Z"


def from_text(text: str, zone: tzinfo = UTC) -> datetime:
    """Parse an ISO 8601 moment with 0 to 9 fractional digits; without a zone it is in `zone`.

    Raises ValueError for anything else. Bitbucket sends both ``2008-08-01T01:53:20+00:00`` and
    ``2025-01-27T14:15:58.600540+00:00``, so no fixed format reads both.
    """
    cut = _FRACTION.sub(lambda found: "." + found[1][:6].ljust(6, "0"), text.strip(), count=1)
    moment = datetime.fromisoformat(cut)
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is outside the years 1 to 9999 in UTC") from None


def normalised(text: str) -> str:
    """Rewrite an ISO 8601 moment in the mirror's form; raises ValueError."""
    return to_text(from_text(text))


def seconds_of(duration: str) -> float:
    """Parse ``30s``, ``15m``, ``1h``, ``7d``, ``10y`` (a year has 365 days) as seconds.

    Raises ValueError, also for more than LONGEST.
    """
    found = _DURATION.fullmatch(duration.strip())
    if found is None:
        raise ValueError(f"{duration!r} is not a duration; write it like 30s, 15m, 1h or 7d")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > LONGEST:
        raise ValueError(f"{duration!r} is longer than a thousand years")
    return seconds


def duration_text(seconds: float) -> str:
    """Write seconds in the largest unit that leaves a whole number: the reverse of `seconds_of`."""
    unit = next((unit for unit in "dhm" if seconds and seconds % _UNITS[unit] == 0), "s")
    return f"{seconds / _UNITS[unit]:g}{unit}"


def age_text(seconds: float) -> str:
    """Write an age for people: ``42 s``, ``3.5 h``, ``9 days``, ``17 years``.

    Days, months and years are rounded down, as people count ages; shorter times are rounded.
    """
    unit, size = next((unit, size) for unit, size, below in _AGES if seconds < below)
    if size >= _UNITS["d"]:
        return f"{seconds // size:.0f} {unit}"
    number = f"{seconds / size:.1f}" if unit == "h" and seconds < 10 * size else f"{seconds / size:.0f}"
    return f"{number.removesuffix('.0')} {unit}"


def ago(text: str | None, now: datetime) -> str:
    """Write how long ago a moment was: ``3 h ago``, ``in 5 min``, ``just now``; raises ValueError."""
    if not text:
        return "never"
    seconds = (now - from_text(text)).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    return f"{age_text(seconds)} ago" if seconds > 0 else f"in {age_text(-seconds)}"


def moment_of(text: str, now: datetime, zone: Callable[[], tzinfo] = lambda: UTC) -> datetime:
    """Parse a moment as people write it: ``2026-11-01``, ``2026-11-01T10:00``, or ``12h`` for that long ago.

    Without a zone it is in the one that `zone` returns, which ages do not need. Raises ValueError.
    """
    if _DURATION.fullmatch(text.strip()):
        return now - timedelta(seconds=seconds_of(text))
    try:
        return from_text(text, zone())
    except ValueError:
        raise ValueError(f"{text!r} is not a time; write 2026-11-01, 2026-11-01T10:00 or 24h") from None


def past_moment(text: str, now: datetime, zone: Callable[[], tzinfo] = lambda: UTC) -> str:
    """Parse a moment of the past as `moment_of` does; return it as it is stored. Raises ValueError."""
    moment = moment_of(text, now, zone)
    if moment > now:
        raise ValueError(f"{text!r} is in the future; the mirror only knows the past")
    return to_text(moment)


SYSTEM_ZONE = Path("/etc/localtime")
_USUAL_RULE = ",M3.2.0,M11.1.0"  # the C library's default for a rule with daylight saving but no dates


def local(moment: datetime) -> datetime:
    """Return a moment in the time zone of this machine."""
    return moment.astimezone(machine_zone())


def time_text(moment: datetime) -> str:
    """Write a time of this machine's day, with its zone: ``02:56:07 CET``."""
    return f"{local(moment):%H:%M:%S %Z}"


def day_text(moment: datetime) -> str:
    """Write a moment to the minute in this machine's zone: ``2026-11-30 02:56 CET``."""
    return f"{local(moment):%Y-%m-%d %H:%M %Z}"


def minute_text(moment: datetime, now: datetime) -> str:
    """Write a moment to the minute in this machine's zone, without the day if it is that of `now`."""
    return f"{local(moment):%H:%M %Z}" if local(moment).date() == local(now).date() else day_text(moment)


def machine_zone(environ: Mapping[str, str] = os.environ) -> tzinfo:
    """Return the zone of ``TZ``, else the system's; UTC if neither can be read.

    Python's own local time raises errors for some values, and schedules need the rules of a zone.
    """
    return _zone_from(environ.get("TZ"))


@lru_cache(maxsize=8)
def _zone_from(text: str | None) -> tzinfo:
    """Parse ``TZ``: a name, a file, or a rule, with or without a colon."""
    if text is None:
        return _from_file(SYSTEM_ZONE) or UTC
    text = text.removeprefix(":")
    if text.startswith("/"):
        return _from_file(Path(text)) or UTC
    return zone_named(text) or _by_rule(text) or _by_rule(text + _USUAL_RULE) or UTC


def zone_named(name: str) -> "ZoneInfo | None":
    """Return a zone by its name, like ``Europe/Amsterdam``; None if there is none."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - most commands write no local time

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


def _from_file(path: Path) -> "ZoneInfo | None":
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    try:
        with path.open("rb") as file:
            return ZoneInfo.from_file(file) if path.is_file() else None
    except (ValueError, OSError, struct.error):
        return None


def _by_rule(rule: str) -> "ZoneInfo | None":
    """Parse a POSIX rule, such as ``CET-1CEST,M3.5.0,M10.5.0/3``; None if it is none."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    if not rule.isascii():
        return None
    # `zoneinfo` reads rules only in a zone file: this makes one in memory (RFC 8536).
    block = (
        b"TZif2" + bytes(15) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", 0, 0, 0) + b"UTC\0"
    )
    try:
        zone = ZoneInfo.from_file(BytesIO(2 * block + f"\n{rule}\n".encode()))
        for month in (1, 7):
            datetime(2000, month, 1, tzinfo=zone).utcoffset()  # fails for 24 hours, which POSIX allows
    except ValueError:
        return None
    return zone
