"""The time zone of this machine, as the C library reads it from ``TZ`` or the system's file."""

import os
import struct
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

SYSTEM_ZONE = Path("/etc/localtime")
_USUAL_RULE = ",M3.2.0,M11.1.0"  # what the C library assumes where a rule says only that there is summer time


def local(moment: datetime) -> datetime:
    """Return a moment in the zone of this machine, for people to read."""
    return moment.astimezone(machine_zone())


def machine_zone(environ: Mapping[str, str] = os.environ) -> tzinfo:
    """Return the zone that ``TZ`` of the environment names, else the system's; UTC where neither can be read.

    Python's own local time raises errors for some values, and schedules need rules to compute with.
    """
    return _zone_from(environ.get("TZ"))


@lru_cache(maxsize=8)
def _zone_from(text: str | None) -> tzinfo:
    """Read ``TZ``: a name, a file, or a rule (``CET-1CEST,M3.5.0,M10.5.0/3``), each perhaps after a colon."""
    if text is None:
        return _from_file(SYSTEM_ZONE) or UTC
    text = text.removeprefix(":")
    if text.startswith("/"):
        return _from_file(Path(text)) or UTC
    return _named(text) or _by_rule(text) or _by_rule(text + _USUAL_RULE) or UTC


def _named(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


def _from_file(path: Path) -> ZoneInfo | None:
    try:
        with path.open("rb") as file:
            return ZoneInfo.from_file(file) if path.is_file() else None
    except (ValueError, OSError, struct.error):
        return None


def _by_rule(rule: str) -> ZoneInfo | None:
    """Read a rule of POSIX as the last line of a zone file, the one place where `zoneinfo` reads rules."""
    if not rule.isascii():
        return None
    block = (
        b"TZif2" + bytes(15) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", 0, 0, 0) + b"UTC\0"
    )
    try:
        return ZoneInfo.from_file(BytesIO(2 * block + f"\n{rule}\n".encode()))
    except ValueError:
        return None
