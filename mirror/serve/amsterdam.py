"""Times as API 1.0 wrote them: Amsterdam wall time without an offset, and UTC beside it.

Bitbucket's first servers stood there; summer time included, `created_on` is one or two hours ahead of
`utc_created_on` in every recorded answer.
"""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

AMSTERDAM = ZoneInfo("Europe/Amsterdam")


def local(moment: str | None) -> str | None:
    """Write a moment of the mirror as changesets and events had it: ``2012-02-20 22:29:16``."""
    if moment is None:
        return None
    return _read(moment).astimezone(AMSTERDAM).strftime("%Y-%m-%d %H:%M:%S")


def local_millis(moment: str | None) -> str | None:
    """Write a moment as repositories had it from 2014 to the end: ``2012-02-20T22:29:16.000``."""
    if moment is None:
        return None
    return _read(moment).astimezone(AMSTERDAM).replace(tzinfo=None).isoformat(timespec="milliseconds")


def utc(moment: str | None) -> str | None:
    """Write a moment as the `utc` keys had it: ``2012-02-20 21:29:16+00:00``."""
    return None if moment is None else f"{moment[:10]} {moment[11:19]}+00:00"


def _read(moment: str) -> datetime:
    """Read the mirror's own fixed-width form, which is quicker than `mirror.times.from_text`."""
    return datetime.fromisoformat(moment[:26]).replace(tzinfo=UTC)
