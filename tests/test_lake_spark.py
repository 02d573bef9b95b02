"""The merge and the questions on Spark: a master and two workers on loopback, one of which is killed.

Skipped where PySpark or Java is missing; `make test-lake` installs both.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import Random

import duckdb
import pyarrow.parquet as pq
import pytest
from fixtures_db import LATER, FixtureDb, hg_ref, repository

from mirror.lake.build import build
from mirror.lake.export import ExportOptions, export
from mirror.lake.merge import OUTPUT, Merged, merge, read_merged
from mirror.lake.place import Place

pyspark = pytest.importorskip("pyspark", reason="PySpark is not installed; `make test-lake` installs it")
if shutil.which("java") is None:
    pytest.skip("Java is not installed; `make test-lake` installs it", allow_module_level=True)

pytestmark = pytest.mark.timeout(1800)
HOME = Path(pyspark.__file__).parent
QUESTIONS = Path(__file__).parent.parent / "contrib/lake/questions.sql"
QUICK = "-XX:TieredStopAtLevel=1"
"""Java compiles less well and much faster: programs of seconds gain by it."""
SETTINGS = {
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.executor.memory": "700m",
    "spark.driver.memory": "700m",
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.extraJavaOptions": QUICK,
    "spark.executor.extraJavaOptions": QUICK,
}
CONFIGURED = [word for name, value in SETTINGS.items() for word in ("--conf", f"{name}={value}")]
ENVIRONMENT = {
    **os.environ,
    "SPARK_HOME": str(HOME),
    "SPARK_LOCAL_IP": "127.0.0.1",
    "SPARK_DAEMON_JAVA_OPTS": QUICK,
    "PYSPARK_PYTHON": sys.executable,
    "PYSPARK_SUBMIT_ARGS": f"{' '.join(CONFIGURED)} pyspark-shell",
}


class Cluster:
    """A standalone cluster whose processes log into files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"spark://127.0.0.1:{free.getsockname()[1]}"
        port = self.url.rpartition(":")[2]
        self.processes = {"master": self._start("master", "Master", "--port", port)}
        self._wait("master", "I have been elected leader")
        for name in ("one", "two"):
            options = ("--cores", "1", "--memory", "1g", "--work-dir", str(folder / name), self.url)
            self.processes[name] = self._start(name, "Worker", *options)
        for name in ("one", "two"):
            self._wait(name, "Successfully registered with master")

    def _start(self, name: str, role: str, *options: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            command = [str(HOME / "bin/spark-class"), f"org.apache.spark.deploy.{role.lower()}.{role}"]
            more = ["--host", "127.0.0.1", "--webui-port", "0", *options]
            return subprocess.Popen([*command, *more], env=ENVIRONMENT, stdout=log, stderr=log)

    def _wait(self, name: str, text: str) -> None:
        until(lambda: text in (self.folder / f"{name}.log").read_text(), f"{name}: {text}")

    def kill(self, name: str) -> int:
        """Kill a worker and its executors by SIGKILL; return how many processes those were."""
        worker = self.processes[name].pid
        doomed = [worker, *children(worker)]
        for pid in doomed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.processes.pop(name).wait()
        return len(doomed)

    def stop(self) -> None:
        """End all processes."""
        for process in self.processes.values():
            process.terminate()
            process.wait()


def children(parent: int) -> list[int]:
    """The processes that a process started, with their children."""
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    found = [int(pid) for path in listed.parent.parent.glob("*/children") for pid in path.read_text().split()]
    return [pid for child in found for pid in (child, *children(child))]


def until(holds: Callable[[], bool], what: str, seconds: float = 900) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A master and two workers."""
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    yield found
    found.stop()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exports of three mirrors that overlap, with changes and refs."""
    folder, random = tmp_path_factory.mktemp("lake"), Random(1)
    for number in range(3):
        filled = FixtureDb(folder / f"{number}.db")
        rows = [repository(f"{owner}/tool-{n}", description=str(number), is_private=random.random() < 0.1)
                for owner in ("ann", "bob", "cid") for n in range(200) if random.random() < 0.6]  # fmt: skip
        filled.repositories(rows, at=f"2026-11-0{number + 1}T00:00:00.000000Z")
        for row in rows[::3]:
            for digit in random.sample("123", 2):
                refs = [hg_ref("tag", f"v{n}", digit) for n in range(random.randint(0, 4))]
                filled.refs(row.full_name, refs, at=LATER)
        for row in random.sample(rows, 40):
            filled.gone(row.full_name)
        filled.store.close()
        export(filled.path, Place(str(folder / "lake")), ExportOptions())
    return folder / "lake"


@contextmanager
def started(lake: Path, out: Path, master: str) -> Iterator[subprocess.Popen[str]]:
    """Merge with Spark in a process that ends with the test."""
    ours = ["env", "--default-signal=INT", sys.executable]  # where the tests run with `&`, Ctrl-C is ignored
    command = [*ours, "-m", "mirror", "lake", "merge", str(lake), str(out), "--engine", "spark"]
    with (out.parent / "driver.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--master", master, "--json"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def answers(out: Path) -> list[list[tuple[object, ...]]]:
    """Ask the three questions with DuckDB."""
    with closing(duckdb.connect()) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name in OUTPUT:
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM '{out}/{name}/*.parquet'")
        asked = [text for text in QUESTIONS.read_text().split(";") if text.strip()]
        return [connection.execute(text).fetchall() for text in asked]


def test_spark_merges_and_answers_as_duckdb_does(cluster: Cluster, lake: Path, tmp_path: Path) -> None:
    """Equal rows, equal checksums; the questions, asked by Spark itself, have equal answers."""
    expected = merge(str(lake), tmp_path / "by-duckdb", "duckdb")
    with started(lake, tmp_path / "by-spark", cluster.url) as process:
        said = process.communicate()[0]
    assert process.returncode == 0, (tmp_path / "driver.log").read_text()[-3000:]
    done = Merged(**{**json.loads(said), "mirrors": []})
    assert (done.rows, done.checksums) == (expected.rows, expected.checksums)
    wanted = answers(tmp_path / "by-duckdb")
    assert all(wanted)
    assert answers(tmp_path / "by-spark") == wanted
    asking = (
        "import sys, json, datetime; from mirror.lake import merge_spark as m; from pyspark.sql import *; "
    )
    asking += "s = SparkSession.builder.master(sys.argv[1]).getOrCreate(); "
    asking += "q = m.statements_of(open(sys.argv[3]).read()); "
    asking += "print(json.dumps([m.ask(s, sys.argv[2], one) for one in q], default=str))"
    found = subprocess.run(
        [sys.executable, "-c", asking, cluster.url, tmp_path / "by-spark", QUESTIONS],
        env=ENVIRONMENT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(found.stdout) == json.loads(json.dumps(wanted, default=str))


def test_the_file_alone_merges_too(cluster: Cluster, lake: Path, tmp_path: Path) -> None:
    """By spark-submit without the program; a mirror can be built from the result."""
    expected = merge(str(lake), tmp_path / "by-duckdb", "duckdb")
    submit = [str(HOME / "bin/spark-submit"), "--master", cluster.url, *CONFIGURED]
    command = [*submit, "contrib/lake/merge_spark.py", str(lake), str(tmp_path / "out")]
    done = subprocess.run(
        command, cwd=QUESTIONS.parents[2], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == expected.rows
    found = read_merged(tmp_path / "out")
    assert (found.rows, found.mirrors) == (expected.rows, expected.mirrors)
    built = build(tmp_path / "union.db", tmp_path / "out", tmp_path / "mirror.db")
    assert built.rows["repositories"] == expected.rows["repositories"]


def test_what_an_older_version_wrote_is_merged_too(lake: Path, tmp_path: Path) -> None:
    """Its files and its `_SCHEMA.json` lack the columns that were added since."""
    older, added = tmp_path / "lake", ("upstream", "hidden_until")
    shutil.copytree(lake, older)
    for path in older.rglob("*.parquet"):
        rows = pq.read_table(path, partitioning=None)
        pq.write_table(rows.drop_columns([name for name in added if name in rows.column_names]), path)
    told = json.loads((older / "_SCHEMA.json").read_text())
    for table in told["tables"].values():
        table["columns"] = [column for column in table["columns"] if column["name"] not in added]
    (older / "_SCHEMA.json").write_text(json.dumps(told))
    expected = merge(str(older), tmp_path / "by-duckdb", "duckdb")
    with started(older, tmp_path / "by-spark", "local[1]") as process:
        said = process.communicate()[0]
    assert process.returncode == 0, (tmp_path / "driver.log").read_text()[-3000:]
    done = json.loads(said)
    assert (done["rows"], done["checksums"]) == (expected.rows, expected.checksums)


def test_ctrl_c_ends_a_merge_by_spark(cluster: Cluster, lake: Path, tmp_path: Path) -> None:
    """With the exit code of Ctrl-C and one line, and nothing is left behind."""
    with started(lake, tmp_path / "out", cluster.url) as process:
        until((tmp_path / "out.part/repositories/_SUCCESS").exists, "the first table is written")
        process.send_signal(signal.SIGINT)
        assert process.communicate()[0] == ""
    log = (tmp_path / "driver.log").read_text()
    assert process.returncode == 130, log[-3000:]
    assert log.splitlines()[-1] == "mirror: interrupted; what was saved is kept"
    assert "Traceback" not in log
    assert not list(tmp_path.glob("out*"))


def test_a_killed_worker_changes_nothing(cluster: Cluster, lake: Path, tmp_path: Path) -> None:
    """SIGKILL of a worker and its executor during the merge: the same checksums."""
    expected = merge(str(lake), tmp_path / "by-duckdb", "duckdb")
    with started(lake, tmp_path / "out", cluster.url) as process:
        until((tmp_path / "out.part/repositories/_SUCCESS").exists, "the first table is written")
        assert cluster.kill("one") >= 2
        printed = process.communicate()[0]
    log = (tmp_path / "driver.log").read_text()
    assert process.returncode == 0, log[-3000:]
    said = (cluster.folder / "master.log").read_text() + log
    lost = [line for line in said.splitlines() if re.search(r"Launching exec|Removing |[Ll]ost exec", line)]
    begun = max(number for number, line in enumerate(sorted(lost)) if "/0 on worker" in line)
    print(*sorted(lost)[begun:], sep="\n")
    assert "Lost executor" in log
    done = json.loads(printed)
    assert (done["rows"], done["checksums"]) == (expected.rows, expected.checksums)
