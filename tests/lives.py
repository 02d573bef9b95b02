"""A mirror file in which a repository has a past, minute by minute."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from fixtures_db import FixtureDb, hg_ref, owner, repository

from mirror.times import to_text

START = datetime(2026, 11, 1, tzinfo=UTC)


def moment(minutes: int) -> str:
    """So many minutes after the first look."""
    return to_text(START + timedelta(minutes=minutes))


def live(path: Path) -> FixtureDb:
    """A repository that was renamed, edited, private for a while and transferred; refs that moved."""
    filled = FixtureDb(path)
    once = repository("ann/old", uuid="{it}", description="first", size=5)
    filled.repositories([once], at=moment(0), first=True)
    filled.refs("ann/old", [hg_ref("branch", "master", "1"), hg_ref("tag", "tip", "1")], at=moment(1))
    filled.refs("ann/old", [hg_ref("branch", "master", "1"), hg_ref("tag", "tip", "1")], at=moment(20))
    filled.refs("ann/old", [hg_ref("branch", "master", "2"), hg_ref("tag", "tip", "2")], at=moment(30))
    filled.repositories(
        [repository("ann/mid", uuid="{it}", description="then", is_private=True)], at=moment(40)
    )
    filled.repositories([repository("ann/mid", uuid="{it}", description="then")], at=moment(50))
    filled.refs("ann/mid", [hg_ref("branch", "master", "2")], at=moment(60))
    new = repository("bob/new", owner("bob"), uuid="{it}", description="last", size=7)
    filled.repositories([new], at=moment(70))
    filled.repositories([repository("ann/old", uuid="{other}", description="another")], at=moment(80))
    filled.refs("bob/new", [], at=moment(90))
    return filled
