"""A sync releases everything at its end."""

import threading
from pathlib import Path

import pytest
from cli_runner import BrokenReporter, small_sandbox

from mirror.config import Config, UpstreamConfig
from mirror.operations import SyncOptions, sync_all
from mirror.report import Reporter


def test_a_failed_run_releases_the_lock(tmp_path: Path) -> None:
    """At once, not when the traceback is freed: the next sync of the same process works."""
    with small_sandbox(20) as box:
        upstreams = (UpstreamConfig(name="box", kind="sandbox", url=box.url),)
        config = Config(database=str(tmp_path / "mirror.db"), upstreams=upstreams)
        with pytest.raises(ZeroDivisionError) as kept:
            sync_all(config, SyncOptions(), report=BrokenReporter(), stop=threading.Event())
        (summary,) = sync_all(config, SyncOptions(), report=Reporter(), stop=threading.Event())
        assert summary.state == "complete"
        assert kept.value.args[0] == "listing workspaces"
