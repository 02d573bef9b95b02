"""`contrib/litestream`: a replica that survives kills, and new copies for a server of copies."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from random import Random

import pytest
from cli_runner import Folder, small_sandbox
from fixtures_db import fill_public
from whole_files import Rows, all_rows

from mirror.store.backup import back_up

CONTRIB = Path(__file__).resolve().parent.parent / "contrib/litestream"


def mirrored(path: Path) -> Rows:
    """All rows except litestream's own."""
    return {name: rows for name, rows in all_rows(path).items() if not name.startswith("_litestream")}


@pytest.mark.skipif(shutil.which("litestream") is None, reason="litestream is not installed")
def test_a_replica_survives_kills_of_either(folder: Folder) -> None:
    """The sync and litestream are killed in turn; the restored file has the same rows."""
    path, random = folder.path / "data/mirror.db", Random(1)
    path.parent.mkdir()
    said = {"MIRROR_DATABASE": str(path), "MIRROR_REPLICA": str(folder.path / "replica")}
    settings = ["-config", str(CONTRIB / "litestream.yml")]
    replicate, environment = ["litestream", "replicate", *settings], {**os.environ, **said}
    log = (folder.path / "litestream.log").open("w")
    with small_sandbox(600) as box, log:
        folder.configure(box.url)
        litestream = subprocess.Popen(replicate, env=environment, stdout=log, stderr=log)
        for _ in range(3):
            sync = folder.start("sync")
            time.sleep(random.uniform(0.5, 1.2))
            litestream.kill()
            litestream.wait()
            sync.kill()
            sync.communicate()
            litestream = subprocess.Popen(replicate, env=environment, stdout=log, stderr=log)
        assert folder.run("sync").code == 0
        time.sleep(4)
        litestream.kill()
        litestream.wait()
    copy = folder.path / "copy.db"
    back = ["litestream", "restore", *settings, "-o", str(copy), str(path)]
    subprocess.run(back, env=environment, check=True, capture_output=True)
    assert mirrored(copy) == mirrored(path)
    assert folder.run("restore", "copy.db").code == 0


FAKE = """#!/bin/sh
# litestream restore -integrity-check quick -o FILE SOURCE
echo half > "$5"
[ "$6" != file:///broken ] || exit 1
cat "${6#file://}" > "$5"
"""


def refresh(path: Path, source: str) -> int:
    """Run the script with a litestream that copies a file."""
    fake = path.with_name("bin") / "litestream"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(FAKE)
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    done = subprocess.run([CONTRIB / "refresh", path, source], env=environment, check=False)
    return done.returncode


def test_a_new_copy_takes_the_place_of_the_file_as_a_whole(tmp_path: Path) -> None:
    """A failed fetch leaves the old file; no other file is left behind."""
    fill_public(tmp_path / "source.db").store.close()
    copy, path = back_up(tmp_path / "source.db", tmp_path / "copy.db"), tmp_path / "mirror.db"
    path.write_text("the file before")
    assert refresh(path, "file:///broken") == 1
    assert path.read_text() == "the file before"
    assert refresh(path, f"file://{copy}") == 0
    assert path.read_bytes() == copy.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("mirror.db?*"))
