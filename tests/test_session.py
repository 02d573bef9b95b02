"""A sync releases everything at its end."""

from pathlib import Path

import pytest
from cli_runner import BrokenReporter, small_sandbox

from mirror.config import Config, UpstreamConfig
from mirror.operations import Control, SyncOptions, sync_all


def test_a_failed_run_releases_the_lock(tmp_path: Path) -> None:
    """At once, not when the traceback is freed: the next sync of the same process works."""
    with small_sandbox(20) as box:
        upstreams = (UpstreamConfig(name="box", kind="sandbox", url=box.url),)
        config = Config(database=str(tmp_path / "mirror.db"), upstreams=upstreams)
        with pytest.raises(ZeroDivisionError) as kept:
            sync_all(config, SyncOptions(), Control(report=BrokenReporter()))
        (summary,) = sync_all(config, SyncOptions(), Control())
        assert summary.state == "complete"
        assert kept.value.args[0] == "listing workspaces"
