"""A soak of a few seconds, by the benchmark."""

import subprocess
import sys
from pathlib import Path

import pytest
from examples import TIMES

from mirror.sandbox import World

ROOT = Path(__file__).resolve().parent.parent
SOAK = ROOT / "benchmarks/soak.py"
MINUTES = 0.3 * TIMES
"""Time enough for one kill of the service, one sync by cron beside it and a handful of webhooks."""


@pytest.mark.timeout(500)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_the_mirror_is_correct_after_a_soak(tmp_path: Path) -> None:
    """Edits, faults, webhooks, readers and kills together; then every row equals the sandbox."""
    command = [
        sys.executable,
        str(SOAK),
        "--minutes",
        str(MINUTES),
        "--repositories",
        "60",
        "--pause",
        "0.2",
        "--folder",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=450)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "0 differences" in done.stdout


def test_the_soak_finds_a_planted_difference(tmp_path: Path) -> None:
    """The comparison fails for a missing row and a wrong branch."""
    from sandbox_comparison import differences
    from sync_harness import crawling

    with crawling(tmp_path, World(20)) as (sandbox, crawl):
        crawl.sync()
        names, origin = sandbox.workspaces(), crawl.config.url.removesuffix("/2.0")

        def found() -> list[str]:
            return list(differences(crawl.rows, sandbox, names, origin=origin))

        assert found() == []
        sandbox.do("push", "jespern/django-piston")
        (row, ref, *_) = found()
        assert row.startswith("jespern/django-piston: size is")
        sandbox.do("create", "jespern/unseen")
        assert "missing: jespern/unseen" in found()
        sandbox.do("delete", "jespern/django-piston")
        assert "too many: jespern/django-piston" in found()
        assert ref
