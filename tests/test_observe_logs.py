"""Logs: one line a run, for people or for programs, without any secret."""

import base64
import io
import json
import logging
from collections.abc import Iterator
from contextlib import redirect_stderr
from urllib.parse import quote

import msgspec
import pytest
from cli_runner import Folder, small_sandbox

from mirror.config import LogConfig, from_toml
from mirror.credentials import redacting
from mirror.observe.logs import Logged, log_run, run_line, secrets_of, set_up
from mirror.report import RunCounts, Summary
from mirror.sandbox import parse_fault
from mirror.store.runs import Failure

SECRET = 'p"ss wörd\\/+'


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    """Restore the state of logging."""
    root, own = logging.getLogger(), logging.getLogger("mirror")
    handlers, levels = list(root.handlers), (root.level, own.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])


def summary(state: str = "complete") -> Summary:
    """The account of a run."""
    return Summary(
        upstream="box", kind="full", state=state, counts=RunCounts(requests=7), seconds=1.5,  # type: ignore[arg-type]
        failures=[], notes=[], error="no answer" if state == "failed" else None,
    )  # fmt: skip


def said(config: LogConfig, *secrets: str) -> io.StringIO:
    """Set logging up, and return its stream."""
    set_up(config, secrets)
    return io.StringIO()


def test_refs_that_wait_for_the_budget_are_not_missing() -> None:
    """A paused run points to no fault in `mirror status`."""
    paused = msgspec.structs.replace(summary("paused"), refs_waiting=1154)
    assert run_line(paused).endswith("; refs of 1,154 waiting")
    assert "missing" not in run_line(paused)


def test_a_run_is_one_line_of_json_with_its_counts() -> None:
    """Every number that a program may sum is a member."""
    out = said(LogConfig(format="json"))
    with redirect_stderr(out):
        log_run(summary())
        log_run(summary("failed"))
    first, second = [json.loads(line) for line in out.getvalue().splitlines()]
    assert (first["upstream"], first["kind"], first["state"], first["requests"]) == (
        "box",
        "full",
        "complete",
        7,
    )
    assert (second["level"], second["error"]) == ("error", "no answer")


def test_a_run_is_one_line_for_people() -> None:
    """With the level if something is wrong."""
    out = said(LogConfig())
    with redirect_stderr(out):
        log_run(summary("failed"))
    (line,) = out.getvalue().splitlines()
    assert "error: box failed: no answer" in line
    assert "7 requests" in line
    one = msgspec.structs.replace(summary(), counts=RunCounts(requests=1))
    assert run_line(one).endswith("; 1 request in 1.5 s")


@pytest.mark.parametrize(
    ("kind", "level"), [("marked", "info"), ("watch", "debug"), ("full", "warning"), ("retry", "warning")]
)
def test_a_run_for_hints_warns_of_its_own_failures_only(kind: str, level: str) -> None:
    """It comes every few seconds, and others tell what they could not read."""
    out, run = said(LogConfig(format="json", level="debug")), summary("incomplete")
    run.kind, run.waiting = kind, [Failure("page", "box", "500")]
    with redirect_stderr(out):
        log_run(run)
        log_run(msgspec.structs.replace(run, failures=run.waiting))
        log_run(msgspec.structs.replace(run, state="failed"))
    assert [json.loads(line)["level"] for line in out.getvalue().splitlines()] == [level, "warning", "error"]


def test_the_log_level_is_obeyed() -> None:
    """Phases only on the level debug; what failed on each; chatter of libraries never."""
    for level, lines in (("debug", 4), ("info", 3), ("error", 1)):
        out = said(LogConfig(level=level))  # type: ignore[arg-type]
        with redirect_stderr(out):
            report = Logged()
            report.phase("listing workspaces", None)
            report.note("a note")
            report.fault("backup: the disk is full")
            report.waiting(60, "the budget is spent")
            report.waiting(59, "the budget is spent")
            logging.getLogger("httpx").info("HTTP Request: GET https://user:password@example.com")
        assert len(out.getvalue().splitlines()) == lines


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_encoding_of_a_secret_is_logged(form: str) -> None:
    """In a message, in a field, in a traceback: plain, in JSON, in an address, in Base64."""
    encoded = base64.b64encode(SECRET.encode()).decode()
    out = said(LogConfig(format=form), SECRET)  # type: ignore[arg-type]
    log = logging.getLogger("mirror.test")
    with redirect_stderr(out):
        log.warning(
            "it is %s, %s", SECRET, encoded, extra={"field": SECRET, "address": quote(SECRET, safe="")}
        )
        try:
            int(f"bad: {SECRET}")
        except ValueError:
            log.exception("it failed")
    text = out.getvalue()
    assert "[secret]" in text
    assert "Traceback" in text
    for spelling in (SECRET, encoded, quote(SECRET, safe=""), json.dumps(SECRET)[1:-1], "wörd"):
        assert spelling not in text


def test_a_short_secret_does_not_redact_parts_of_words() -> None:
    """Redaction must leave the log readable."""
    assert redacting(["a", "the"])("a word of the day") == "a word of the day"


def test_planted_secrets_are_nowhere(folder: Folder) -> None:
    """A token, a webhook's secret, a chat's address, after refusals and faults: in no log, row or error."""
    planted = {
        "TOKEN": "token-Sup3rS3cret-1",
        "HOOK": "hook-Sup3rS3cret-2",
        "CHAT": "http://127.0.0.1:9/chat-Sup3rS3cret-3",
    }
    with small_sandbox(20) as box:
        box.sandbox.add_fault(parse_fault("500,where=refs,nth=every,times=60"))
        folder.configure(
            box.url, 'credential = "env:TOKEN"\nwebhook_secret = "env:HOOK"\nretry = { attempts = 1 }'
        )
        with (folder.path / "mirror.toml").open("a") as file:
            file.write('[log]\nformat = "json"\nlevel = "debug"\n[[alert]]\nurl = "env:CHAT"\n')
        outputs = [folder.run("sync", **planted) for _ in range(2)]
        box.sandbox.add_fault(parse_fault("401,nth=every"))
        outputs += [folder.run("sync", "--full", **planted), folder.run("status", "--json", **planted)]
        outputs.append(folder.run("verify", "--sample", "3", **planted))
    assert any('"logger": "mirror.runs"' in ran.err for ran in outputs)
    assert any("could not be delivered" in ran.err for ran in outputs)
    texts = [ran.out + ran.err for ran in outputs]
    texts += [path.read_bytes().decode("latin-1") for path in (folder.path / "data").iterdir()]
    for text in texts:
        assert "Sup3rS3cret" not in text


def test_the_secrets_of_a_configuration_are_known(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """All readable ones, in each form that HTTP gives them."""
    monkeypatch.setenv("LOGIN", "ann@example.com:hunter2hunter2")
    monkeypatch.setenv("HOOK", "hook-secret-hook")
    config = from_toml(
        '[[upstream]]\nname = "a"\ncredential = "env:LOGIN"\nwebhook_secret = "env:HOOK"\n'
        '[[upstream]]\nname = "b"\ncredential = "env:UNSET_HERE"\nwebhook_secret = "env:UNSET_HERE"'
    )
    found = secrets_of(config)
    assert {"hunter2hunter2", "hook-secret-hook"} <= set(found)
    assert len(found) == 3
