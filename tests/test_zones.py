"""This machine's zone is read as the C library reads it, whatever ``TZ`` holds."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli_runner import Folder, small_sandbox

from mirror.times import machine_zone

WINTER, SUMMER = datetime(2026, 1, 15, 12, tzinfo=UTC), datetime(2026, 7, 15, 12, tzinfo=UTC)
BERLIN = "/usr/share/zoneinfo/Europe/Berlin"


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("UTC0", (0, 0)),
        ("CET-1CEST,M3.5.0,M10.5.0/3", (1, 2)),
        ("CET-1CEST", (1, 2)),
        ("EST5EDT4,M3.2.0/0,M11.1.0", (-5, -4)),
        ("NZST-12NZDT-13,J274,J91", (13, 12)),
        ("<-03>3", (-3, -3)),
        ("Europe/Berlin", (1, 2)),
        (":Europe/Berlin", (1, 2)),
        pytest.param(
            f":{BERLIN}",
            (1, 2),
            marks=pytest.mark.skipif(not Path(BERLIN).is_file(), reason="no zone files here"),
        ),
        *((nonsense, (0, 0)) for nonsense in ("", ":", "nonsense", "Europe", "/etc", "/etc/passwd")),
        *(
            (nonsense, (0, 0))
            for nonsense in ("XYZ25", "../../etc/passwd", "\udcff", "/nonexistent", "A,B,C")
        ),
    ],
)
def test_a_zone_of_every_form_is_read(text: str, hours: tuple[int, int]) -> None:
    """Hours ahead of UTC in winter and in summer of the north; nonsense is UTC."""
    zone = machine_zone({"TZ": text})
    offsets = [moment.astimezone(zone).utcoffset() for moment in (WINTER, SUMMER)]
    assert [offset.total_seconds() / 3600 for offset in offsets if offset is not None] == list(hours)


def test_the_system_is_asked_without_a_variable() -> None:
    """What it says is no matter of this test, but it is a zone."""
    assert WINTER.astimezone(machine_zone({})).utcoffset() is not None


def test_commands_work_in_odd_zones(tmp_path: Path) -> None:
    """Moments are shown in the zone, and schedules are reckoned in it."""
    folder = Folder(tmp_path)
    with small_sandbox(1) as served:
        folder.configure(served.url, 'schedule = "30 2 * * *"')
        assert folder.run("sync", TZ="XYZ25").code == 0
        assert folder.run("status", TZ="XYZ25").code == 0
