"""Output of commands to a pipe that closes, a full disk, a closed stream, a terminal."""

import contextlib
import http.client
import io
import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
from cli_runner import Folder, small_sandbox
from examples import examples
from forked_command import ForkedCommand
from fresh_python import fresh_python
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from mirror.cli.main import exit_code_of
from mirror.cli.printer import Grid, Marked, Printer, clean_console, plain
from mirror.sandbox.faults import Fault
from mirror.store import Store
from mirror.store.files import open_reader

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """A folder with a mirror."""
    folder = Folder(tmp_path_factory.mktemp("synced"))
    with small_sandbox(300) as box:
        folder.configure(box.url)
        assert folder.run("sync").code == 0
        yield folder


def a_name(folder: Folder) -> str:
    """Return the full name of a repository in its mirror."""
    with contextlib.closing(open_reader(folder.path / "data/mirror.db")) as connection:
        return str(connection.execute("SELECT full_name FROM repositories").fetchone()[0])


def shell(folder: Folder, words: str) -> subprocess.CompletedProcess[str]:
    """Run `mirror` in a shell, which redirects its output."""
    line = f'set -o pipefail; mirror() {{ {shlex.join(folder.command())} "$@"; }}; {words}'
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder.path,
        env=folder.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "command", ["search a --limit 300", "search a --limit 300 --json", "show alice/x | cat"]
)
def test_a_closed_pipe_is_no_error(synced: Folder, command: str) -> None:
    """As with `head`."""
    if "show" in command:
        command = f"show {a_name(synced)}"
    done = shell(synced, f"mirror {command} | head -c 1")
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 1, "")


@pytest.mark.parametrize(
    "command", ["inventory --json", "inventory --csv", "search a --limit 300 --json", "--help"]
)
def test_a_pipe_that_nobody_reads_is_no_error(synced: Folder, command: str) -> None:
    """Whether the first line or the end notices it."""
    done = shell(synced, f"mirror {command} | true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("command", ["search a", "search a --json", "status", "status --json", "show"])
def test_a_full_disk_under_stdout_is_one_line(synced: Folder, command: str) -> None:
    """The message does not blame the mirror file."""
    if command == "show":
        command = f"show {a_name(synced)}"
    done = shell(synced, f"mirror {command} > /dev/full")
    assert done.stderr == "mirror: the answer cannot be read or written: No space left on device\n"
    assert done.returncode == 4


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (MemoryError(), "ulimit -v"),
        (ImportError("libopenblas.so: failed to map segment from shared object"), "ulimit -v"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
    ],
    ids=["memory", "modules", "threads"],
)
def test_a_limit_of_the_process_is_one_line(
    error: Exception, limit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no fault of this program, so there is no traceback; any other error is one."""

    def work() -> None:
        raise error

    assert exit_code_of(work) == 4
    said = capsys.readouterr().err
    assert limit in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", ["search a", "status", "token list", "changes", "sync"])
def test_closed_stdout_is_no_error(synced: Folder, command: str) -> None:
    """As some job runners start programs."""
    done = shell(synced, f"mirror {command} >&-")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert shell(synced, f"mirror {command} >&- 2>&-").returncode == 0


@pytest.mark.parametrize("arguments", ["init new.toml", "plan-split --mirrors 2 --out new"])
def test_a_configuration_that_cannot_be_written_leaves_no_part(synced: Folder, arguments: str) -> None:
    """One line, exit code 4; the next try finds no half of a file in its way."""
    done = shell(synced, f"ulimit -f 0; mirror {arguments}")
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (4, 1, "")
    assert not [*synced.path.glob("new.toml"), *synced.path.glob("new/*")]


@contextlib.contextmanager
def full_disk() -> Iterator[int]:
    """A file that takes nothing."""
    with Path("/dev/full").open("wb", 0) as file:
        yield file.fileno()


@contextlib.contextmanager
def unread_pipe() -> Iterator[int]:
    """A pipe whose reader has gone."""
    reads, writes = os.pipe()
    os.close(reads)
    yield writes
    os.close(writes)


@pytest.mark.parametrize("stream", [full_disk, unread_pipe])
def test_messages_that_cannot_be_written_change_nothing(
    tmp_path: Path, stream: Callable[[], contextlib.AbstractContextManager[int]]
) -> None:
    """Neither the exit code, nor what a sync does."""
    folder = Folder(tmp_path)
    with small_sandbox() as box, stream() as lost:
        folder.configure(box.url)
        for command, code in (("status", 4), ("nosuch", 2), ("sync nosuch", 2), ("sync", 0)):
            assert folder.run_into({2: lost}, *command.split()) == code, command
    assert json.loads(folder.run("status", "--json").out)["upstreams"][0]["last_run"]["state"] == "complete"


@pytest.mark.parametrize("stream", [full_disk, unread_pipe])
@pytest.mark.parametrize("command", ["serve", "serve --workers 2", "run", "sandbox"])
def test_a_service_that_cannot_say_where_it_answers_serves(
    synced: Folder, stream: Callable[[], contextlib.AbstractContextManager[int]], command: str
) -> None:
    """It goes on until it is stopped, and says nothing else of it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with stream() as lost:
        words = (*command.split(), "--port", str(port))
        service = ForkedCommand(words, synced.path, synced.environment(), redirected={1: lost})
    try:
        assert answers_at(port)
        service.send_signal(signal.SIGTERM)
        _, said = service.communicate()
    finally:
        service.kill()
    assert (service.returncode, "Traceback" in said, "cannot" in said) == (0, False, False)


def answers_at(port: int) -> bool:
    """Wait until something answers requests on a port; return whether it does."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(OSError, http.client.HTTPException):
            asked = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            with closing(asked):
                asked.request("GET", "/")
                return asked.getresponse().status < 500
        time.sleep(0.05)
    return False


def test_a_reader_that_goes_does_not_change_what_is_found(tmp_path: Path) -> None:
    """The exit code says it; without an alert nobody would know."""
    folder, told = Folder(tmp_path), tmp_path / "told"
    with small_sandbox() as box, unread_pipe() as unread:
        folder.configure(box.url, f'[[alert]]\ncommand = ["tee", "{told}"]\non = ["success"]')
        box.sandbox.add_fault(Fault("404", where="refs", nth=None))
        for command, code in (("sync", 1), ("check", 0), ("verify --sample 1", 1)):
            assert folder.run_into({1: unread}, *command.split()) == code, command
        assert told.exists()
        folder.configure("http://127.0.0.1:9/2.0", "retry = { attempts = 1 }")
        for command, code in (("sync", 4), ("check", 4), ("check --json", 4), ("verify", 4)):
            assert folder.run_into({1: unread}, *command.split()) == code, command


@pytest.mark.parametrize(("command", "code"), [("mcp", 0), ("repo delete alice/x", 2), ("status", 0)])
def test_closed_stdin_is_no_error(synced: Folder, command: str, code: int) -> None:
    """As some job runners start programs: there is nothing to read, and nobody to ask."""
    if command == "mcp" and find_spec("mcp") is None:
        pytest.skip("the extra is not installed")
    done = shell(synced, f"mirror {command} <&-")
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr


def test_a_removed_folder_is_one_line(synced: Folder) -> None:
    """A shell may stay in one, and start commands there."""
    done = shell(synced, "mkdir gone && cd gone && rmdir ../gone && mirror sync")
    said = "mirror: the current folder no longer exists; change into another one\n"
    assert (done.returncode, done.stderr.splitlines()[-1] + "\n") == (4, said)


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_an_ascii_terminal_shows_escapes(synced: Folder, environment: dict[str, str]) -> None:
    """Characters that the encoding lacks are escaped; JSON is UTF-8 everywhere."""
    with Store(synced.path / "data/mirror.db") as store:
        number, name = store.row("SELECT id, full_name FROM repositories ORDER BY id DESC LIMIT 1")
        store.connection.execute("UPDATE repositories SET description = 'fünf €' WHERE id = ?", (number,))
    environment = {**environment, "PYTHONCOERCECLOCALE": "0"}
    with fresh_python(synced, **environment) as run:
        for arguments in (["search", name.partition("/")[2]], ["search", "nobody"], ["status"], ["changes"]):
            assert run(*arguments).code == 0
        assert r"f\xfcnf \u20ac" in run("show", name).out
        assert "fünf €" in run("show", name, "--json").out


@pytest.mark.parametrize("arguments", [r"show $'\xff/x'", r"token revoke $'\xff'"])
def test_an_argument_that_is_not_utf_8_is_one_line(synced: Folder, arguments: str) -> None:
    """Arguments may be any bytes."""
    done = shell(synced, f"mirror {arguments}")
    assert (done.returncode, done.stderr) == (2, "mirror: '\\udcff' cannot be written as utf-8\n")


@pytest.mark.parametrize(
    "arguments",
    [
        "changes --since 999999999999d",
        "changes --since 9999-12-31T23:59:59-10:00",
        "token create x --expires 99999999999d",
        "token create x --expires 0d",
        "token create x --expires=",
    ],
)
def test_impossible_times_are_one_line(synced: Folder, arguments: str) -> None:
    """Times beyond the calendar."""
    done = synced.run(*arguments.split())
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("mirror: --")


def test_token_commands_without_a_mirror_say_so(tmp_path: Path) -> None:
    """A typing error in `database` must not make an empty mirror."""
    folder = Folder(tmp_path)
    for arguments in (("list",), ("revoke", "a")):
        done = folder.run("token", *arguments)
        assert (done.code, "no mirror there yet" in done.err) == (4, True)
    assert list(tmp_path.rglob("*.db")) == []


def test_odd_names_of_older_tokens_are_listed_escaped(tmp_path: Path) -> None:
    """One line each, so that they can be revoked by number."""
    folder = Folder(tmp_path)
    assert folder.run("token", "create", "one").code == 0
    with Store(tmp_path / "data/mirror.db") as store, store.transaction() as connection:
        connection.execute("UPDATE api_tokens SET name = ?", ("one\ntwo\x1b[31m",))
    lines = folder.run("token", "list").out.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["1", "one\\ntwo\\x1b[31m", "read"]]
    assert folder.run("token", "revoke", "one\ntwo\x1b[31m").out == "one\\ntwo\\x1b[31m is revoked\n"
    done = folder.run("token", "create", "one\ntwo")
    assert (done.code, done.err.count("\n"), done.out) == (2, 1, "")


def test_foreign_text_cannot_control_the_terminal(synced: Folder) -> None:
    """Names of repositories may contain control characters."""
    with Store(synced.path / "data/mirror.db") as store:
        store.connection.execute(
            """UPDATE repositories SET language = ?, description = ?, website = ?
               WHERE id = (SELECT min(id) FROM repositories)""",
            ("\x1b[7mL", "\x1b[31mRED\x1b]0;title\x07 \x9b2J", "https://example.org/\x9b\u202e"),
        )
        name = store.row("SELECT full_name FROM repositories ORDER BY id LIMIT 1")[0]
    for arguments in (("show", name), ("search", name)):
        done = synced.run(*arguments)
        assert "RED" in done.out
        assert all(letter.isprintable() or letter == "\n" for letter in done.out)


def test_plain_keeps_lines_and_letters() -> None:
    """All visible characters stay."""
    assert plain("é 🐍\n\x1b[1m\t\u202e") == "é 🐍\n\\x1b[1m \\u202e"


def test_styles_of_our_own_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """Only texts of others are escaped."""
    clean_console(force_terminal=True, color_system="standard", width=40).print(Text("a\x1bb", style="bold"))
    assert capsys.readouterr().out == "\x1b[1ma\\x1bb\x1b[0m\n"


@pytest.mark.parametrize("columns", [40, 70])
@pytest.mark.parametrize("asked", [("search", "django"), ("refs", "master")])
def test_a_narrow_terminal_shows_whole_names(synced: Folder, asked: tuple[str, str], columns: int) -> None:
    """Other columns are left out or cut with an ellipsis."""
    answer = json.loads(synced.run(*asked, "--json").out)
    names = [f"{row['owner']}/{row['slug']}" for row in answer.get("refs", answer["repositories"])]
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, columns))
    with subprocess.Popen(
        synced.command(*asked),
        cwd=synced.path,
        env=synced.environment(NO_COLOR="1", TERM="xterm", COLUMNS=""),
        stdout=terminal,
    ) as running:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while block := os.read(controller, 4096):
                shown += block
    os.close(controller)
    lines = ANSI.sub("", shown.decode()).splitlines()[1:]
    assert running.returncode == 0
    assert [line.split()[0] for line in lines if line.strip()] == names
    assert max(map(len, lines)) <= columns


def test_a_narrow_table_shows_whole_names() -> None:
    """A long name goes on in the next line: two repositories of one owner looked alike."""
    stream, name = io.StringIO(), "jespern/bitbucket-issue-query"
    grid = Grid({"header": "repository"}, {"header": "size", "justify": "right"})
    grid.add(name, "12 kB")
    Printer(stream, 20).table(grid)
    assert "".join(line.split()[0] for line in stream.getvalue().splitlines()[1:]) == name


def test_search_takes_the_filters_of_the_page(synced: Folder) -> None:
    """Each filter alone; gone repositories only on request."""
    with Store(synced.path / "data/mirror.db") as store:
        rows = store.connection.execute(
            "SELECT id, full_name FROM repositories ORDER BY id LIMIT 3"
        ).fetchall()
        for row, change in zip(
            rows, ("language = 'Ada'", "is_private = 1", "deleted_at = '2026-01-01'"), strict=True
        ):
            store.connection.execute(
                f"UPDATE repositories SET is_private = 0, {change} WHERE id = ?", (row[0],)
            )
    gone = set(names_found(synced, "--gone")) - set(names_found(synced))
    assert names_found(synced, "--language", "ada") == [rows[0][1]]
    assert rows[1][1] in names_found(synced, "--visibility", "private")
    assert rows[1][1] not in names_found(synced, "--visibility", "public")
    assert gone == {rows[2][1]}
    assert (
        synced.run("search", "", "--language", "None of that").out
        == "No repository matches with these filters\n"
    )
    assert synced.run("search", "zzzzqq", "--forks", "no").out == (
        "No repository matches 'zzzzqq' with these filters\n"
    )


def names_found(folder: Folder, *options: str) -> list[str]:
    """Return the full names of all that a search with options lists."""
    listed = json.loads(folder.run("search", "", "--limit", "100000", "--json", *options).out)["repositories"]
    return [row["full_name"] for row in listed]


def test_an_empty_list_of_changes_says_so(synced: Folder) -> None:
    """With its start time; JSON has no line."""
    assert re.fullmatch(
        r"Nothing since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n", synced.run("changes", "--since", "2999-01-01").out
    )
    assert synced.run("changes", "--since", "2999-01-01", "--json").out == ""


TEXTS = st.text("ab/-., [:]\\é…ß漢🐍\u0301\u202e\x1b\t\n", max_size=30)
LAYOUTS = st.sampled_from(
    [
        {},
        {"no_wrap": True},
        {"overflow": "fold"},
        {"overflow": "fold", "min_width": 12, "no_wrap": True},
        {"overflow": "ellipsis", "no_wrap": True, "max_width": 9},
        {"justify": "right"},
    ]
)  # fmt: skip


@given(
    texts=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=4),
    layouts=st.tuples(LAYOUTS, LAYOUTS, LAYOUTS),
    header=st.booleans(),
    width=st.sampled_from([20, 50, 200]),
)
@settings(max_examples=examples(100))
def test_what_needs_no_layout_is_printed_as_rich_prints_it(
    texts: list[tuple[str, str, str]], layouts: tuple[dict[str, object], ...], header: bool, width: int
) -> None:
    """Lines and tables are equal, byte for byte, with and without rich."""
    columns = [
        {**layout, "header": f"h{number}"} if header else layout for number, layout in enumerate(layouts)
    ]

    def printed(*, by_rich: bool) -> str:
        stream = io.StringIO()
        printer = Printer(stream, width)
        printer._is_plain = not by_rich
        grid = Grid(*columns)
        for first, *others in texts:
            printer.say((first, "bold"), others[0])
            printer.line(*others)
            grid.add(Marked(first, [(0, 1)]), *others)
        printer.table(grid)
        return stream.getvalue()

    assert printed(by_rich=False) == printed(by_rich=True)


def test_line_ends_in_names_break_no_line(synced: Folder, tmp_path: Path) -> None:
    """A row of a table stays on one line, whatever an upstream sends."""
    folder = Folder(tmp_path)
    with contextlib.closing(open_reader(synced.path / "data/mirror.db")) as source:
        source.execute("VACUUM INTO ?", (str(tmp_path / "mirror.db"),))
    with Store(tmp_path / "mirror.db") as store, store.transaction() as connection:
        number = connection.execute("SELECT repository_id FROM branches").fetchone()[0]
        connection.execute("UPDATE branches SET name = 'one\ntwo' WHERE repository_id = ?", (number,))
        connection.execute("UPDATE repositories SET website = 'three\nfour' WHERE id = ?", (number,))
        name = connection.execute("SELECT full_name FROM repositories WHERE id = ?", (number,)).fetchone()[0]
    (tmp_path / "mirror.toml").write_text('database = "mirror.db"')
    shown = folder.run("show", name).out.splitlines()
    for text in ("one two", "three four"):
        assert [line for line in shown if text in line]
    assert not {"two", "four"} & {line.split()[0] for line in shown if line.strip()}
