"""A sync releases everything at its end."""

import threading
from pathlib import Path

import pytest
from cli_runner import small_sandbox

from mirror.config import Config, UpstreamConfig
from mirror.operations import SyncOptions, sync_all
from mirror.report import Reporter


class Breaks(Reporter):
    """A listener with a bug."""

    def phase(self, what: str, total: int | None) -> None:
        """Break."""
        raise ZeroDivisionError(what, total)


def test_a_failed_run_releases_the_lock(tmp_path: Path) -> None:
    """At once, not when the traceback is freed: the next sync of the same process works."""
    with small_sandbox(20) as box:
        upstreams = (UpstreamConfig(name="box", kind="sandbox", url=box.url),)
        config = Config(database=str(tmp_path / "mirror.db"), upstreams=upstreams)
        with pytest.raises(ZeroDivisionError) as kept:
            sync_all(config, SyncOptions(), report=Breaks(), stop=threading.Event())
        (summary,) = sync_all(config, SyncOptions(), report=Reporter(), stop=threading.Event())
        assert summary.state == "complete"
        assert kept.value.args[0] == "listing workspaces"
