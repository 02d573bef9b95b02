"""A configuration is read as a whole, or refused with file, line, key and remedy."""

import os
import re
import threading
from pathlib import Path

import msgspec
import pytest

from mirror.cli.setup import documentation, template
from mirror.config import (
    BUILT_IN,
    AlertConfig,
    Config,
    LogConfig,
    Retry,
    ServeConfig,
    UpstreamConfig,
    from_toml,
    read_config,
)
from mirror.errors import ConfigError
from mirror.settings import settings_of


def uncommented(text: str) -> str:
    """Uncomment the settings in a template."""
    return re.sub(r"^# (?=\w+ = |\[)", "", text, flags=re.MULTILINE)


def test_the_template_is_valid_and_states_the_defaults() -> None:
    """The file of `mirror init` works; comments show the default, or else an example."""
    config, shown = (
        from_toml(template()),
        from_toml(re.sub(r"\n(ping|command) = .*", "", uncommented(template()))),
    )
    examples = {"credential": "env:BITBUCKET_TOKEN", "webhook_secret": "env:BITBUCKET_WEBHOOK_SECRET"}
    upstream = msgspec.structs.replace(config.upstreams[0], **examples, requests_per_hour=950)
    assert (config.upstreams[0].name, config.upstreams[0].workspaces) == ("cloud", ("atlassian",))
    assert shown.upstreams == (upstream,)
    assert msgspec.structs.replace(shown, upstreams=(), alerts=()) == Config()


@pytest.mark.parametrize("struct", [UpstreamConfig, Retry, AlertConfig, ServeConfig, LogConfig])
def test_every_setting_describes_itself(struct: type[msgspec.Struct]) -> None:
    """In one sentence, with an example if the default shows nothing."""
    for setting in settings_of(struct):
        assert re.fullmatch(r"[A-Z].{10,110}\.", setting.help), setting.name
        assert setting.example not in ("", '""', "[]"), setting.name


def test_the_documentation_is_that_of_the_settings() -> None:
    """`make docs` would write the same page."""
    page = Path(__file__).resolve().parent.parent / "docs/configuration.md"
    assert page.read_text("utf-8") == documentation()


def test_without_a_file_the_sandbox_is_the_upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The product runs without a configuration."""
    monkeypatch.chdir(tmp_path)
    assert read_config(None) == BUILT_IN


def test_a_file_without_upstreams_has_the_sandbox() -> None:
    """Settings of the server alone are valid."""
    config = from_toml("[serve]\nport = 9000\n")
    assert (config.serve.port, config.upstreams[0].kind) == (9000, "sandbox")


def test_durations_are_read() -> None:
    """Seconds, minutes, hours and days, also fractions."""
    upstream = from_toml(
        '[[upstream]]\nname = "a"\ntimeout = "1.5s"\noverlap = "2d"\nretry = { max_delay = "3m" }'
    ).upstreams[0]
    spoken = [float(value) for value in (upstream.timeout, upstream.overlap, upstream.retry.max_delay)]
    assert spoken == [1.5, 172_800, 180]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("database = 3", ["line 1", "database", "str"]),
        ("\nfoo = 1", ["line 2", "unknown setting 'foo'", "database", "upstream"]),
        ('[[upstream]]\nname = "a"\n[[upstream]]\nname = "b"\nkind = "x"', ["line 5", "kind", "'x'"]),
        ('[[upstream]]\nname = "a"\ntimeout = 30', ["line 3", "timeout", '"30s"']),
        ('[[upstream]]\nname = "a"\ntimeout = "30"', ["line 3", "timeout", "30s"]),
        ('[[upstream]]\nname = "a"\nretry = { attempts = 0 }', ["line 3", "attempts", ">= 1"]),
        ('[[upstream]]\nname = "a"\nretry = { attemps = 2 }', ["line 3", "'attemps'", "attempts"]),
        ('[[upstream]]\nkind = "cloud"', ["line 1", "needs `name`"]),
        ("[serve]\nprot = 1", ["line 2", "'prot'", "port"]),
        ("[serve]\nport = 99999", ["line 2", "port", "65535"]),
        ("a =", ["not TOML"]),
        ('[[upstream]]\nname = "a"\ncredential = "hunter2"', ["line 3", "credential", "env:NAME"]),
        ('[[upstream]]\nname = "a"\n[[upstream]]\nname = "a"', ["line 4", "name of another upstream"]),
        ('[[upstream]]\nname = "a"\n\nurl = "ftp://x"', ["line 4", "url", "https://"]),
        ('[[upstream]]\nname = "a"\nurl = "https://u:p@h/x"', ["line 3", "no login"]),
        ('[[upstream]]\nname = "a"\nurl = "https://u:p@[::1/2.0"', ["line 3", "not a web address"]),
        ('[[upstream]]\nname = "a"\nurl = "https://h:99999/2.0"', ["line 3", "not a web address"]),
        ('[[upstream]]\nname = "a"\nurl = "https://h/2.0?a=u:p"', ["line 3", "no ?"]),
        ('[[upstream]]\nname = "a"\nurl = "http://[fe80::1%25eth0]/2.0"', ["line 3", "[fe80::1%eth0]"]),
        ('[[upstream]]\nname = "a"\nurl = "https://h /2.0"', ["line 3", "no spaces"]),
        ('[[upstream]]\nname = "a"\ntimeout = "0s"', ["line 3", "timeout", "longer"]),
        ('[[upstream]]\nname = "a"\ntimeout = "25h"', ["line 3", "timeout", "at most 1d"]),
        (
            "[serve]\nread_only = true\nwrites = true",
            ["line 3", "passes no writes on; remove one of the two"],
        ),
        ('[[upstream]]\nname = "a"\nkind = "datacenter"', ["line 3", 'add one like url = "https://']),
        ('[serve]\nbackup_schedule = "6h"', ["line 2", "place is the top of the file, above all sections"]),
        ('schedule = "6h"', ["line 1", "its place is under [[upstream]] or under [history]"]),
        (
            '[serve]\npublic_url = "code.example"',
            ["line 2", "public_url: is not https://", "write it like"],
        ),
        ('[serve]\npublic_url = "https://u:p@h/x"', ["line 2", "without login"]),
        ("[serve]\n[serve]", ["not TOML", "each [section] stands only once"]),
        ('[[upstream]]\nname = "a"\nworkspaces = "x"', ["line 3", "workspaces", "array"]),
        ("\nupstream = []", ["line 2", "upstream: is empty; write an [[upstream]] section"]),
        ('[[upstream]]\nname = "a"\nworkspaces = []', ["line 3", "names no workspace; name some, or leave"]),
        ('[[upstream]]\nname = "a"\nworkspaces = ["a b"]', ["line 3", "not a workspace"]),
        (f'[[upstream]]\nname = "a"\nworkspaces = ["{"a" * 70_000}"]', ["line 3", "not a workspace"]),
        (
            '[[upstream]]\nname = "a"\naccept_missing = ["x"]',
            ["line 3", "not a repository name", "owner/slug"],
        ),
        ('backup_folder = "a\\u0000b"', ["line 1", "backup_folder: has a NUL character"]),
        ('[serve]\npublic_snapshot = "a\\u0000b"', ["line 2", "public_snapshot: has a NUL"]),
        ('[[upstream]]\nname = "a"\nworkspaces = [\n"a\\u0000b"]', ["line 3", "workspaces: has a NUL"]),
        ('[[alert]]\ncommand = ["a", "\\u0000"]', ["line 2", "command: has a NUL"]),
        ('[[upstream]]\nname = "A B"', ["line 2", "name"]),
        ("file_mode = 0o600", ["line 1", 'write it like file_mode = "0600"']),
    ],
)
def test_an_error_names_the_setting_and_its_line(text: str, parts: list[str]) -> None:
    """One sentence has file, line, key and remedy, but not a misplaced secret."""
    with pytest.raises(ConfigError) as caught:
        from_toml(text, where="my.toml")
    message = str(caught.value)
    assert message.startswith("my.toml")
    assert "\n" not in message
    assert "remove one of the two; did you mean" not in message
    assert "hunter2" not in message
    assert "u:p" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"", b" \r\n", "folder"])
def test_an_unreadable_file_is_one_clear_line(tmp_path: Path, content: bytes | str | None) -> None:
    """A missing file, one that is not text or has none, or a folder."""
    path = tmp_path / "m.toml"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"m\.toml"):
        read_config(path)


def test_a_file_of_comments_means_the_sandbox(tmp_path: Path) -> None:
    """Somebody wrote it so; a file without any text has lost it."""
    path = tmp_path / "m.toml"
    path.write_text("# nothing yet")
    assert read_config(path).upstreams == BUILT_IN.upstreams


def test_paths_begin_at_home_or_beside_the_file(tmp_path: Path) -> None:
    """Where the program was started does not matter."""
    file = tmp_path / "mirror.toml"
    file.write_text(
        """database = "~/m.db"
        backup_folder = "copies"
        [[upstream]]
        name = "cloud"
        url = "https://api.bitbucket.org/2.0"
        credential = "file:~/token"
        webhook_secret = "file:secret"
        """
    )
    config = read_config(file)
    assert config.database == str(Path.home() / "m.db")
    assert config.backup_folder == str(tmp_path / "copies")
    assert config.upstreams[0].credential == f"file:{Path.home() / 'token'}"
    assert config.upstreams[0].webhook_secret == f"file:{tmp_path / 'secret'}"


def test_a_config_compares_by_value() -> None:
    """Two readings of the same text are the same configuration."""
    assert from_toml(template()) == from_toml(template())
    assert from_toml(template()) != Config()


def test_a_byte_order_mark_is_read_and_utf_16_is_refused(tmp_path: Path) -> None:
    """A byte order mark and line ends of Windows are ignored."""
    path = tmp_path / "mirror.toml"
    path.write_bytes(b'\xef\xbb\xbf[[upstream]]\r\nname = "cloud"\r\nworkspaces = ["ws"]\r\n')
    assert read_config(path).upstreams[0].workspaces == ("ws",)
    path.write_text('database = "m.db"', "utf-16")
    with pytest.raises(ConfigError, match="not UTF-8 text; save it as UTF-8"):
        read_config(path)


@pytest.mark.parametrize("text", ["a = " + "[" * 9000, "a = " + "1" * 5000])
def test_a_number_or_nesting_beyond_measure_is_refused(text: str) -> None:
    """Python raises other errors for both than for text that is no TOML."""
    with pytest.raises(ConfigError, match="a number is too long, or lists are nested too deeply"):
        from_toml(text)


@pytest.mark.parametrize("text", ["a" + ".a" * 20_000 + " = 1", "[" + '"a" . ' * 20_000 + "b]"])
def test_a_key_of_thousands_of_parts_is_refused(text: str) -> None:
    """Before Python's parser takes many seconds for it; a long list of short texts is no such key."""
    with pytest.raises(ConfigError, match="a key has more than 100 parts"):
        from_toml(text)
    names = ", ".join(f'"a.b{number}"' for number in range(300))
    config = from_toml(f"[[upstream]]\nname = 'cloud'\nworkspaces = [{names}]")
    assert len(config.upstreams[0].workspaces or ()) == 300


def test_a_file_without_an_end_is_refused(tmp_path: Path) -> None:
    """Also one that a configuration names."""
    with pytest.raises(ConfigError, match="/dev/zero: has more than 10,000,000 characters"):
        read_config(Path("/dev/zero"))
    path = tmp_path / "mirror.toml"
    path.write_text('[[upstream]]\nname = "cloud"\nworkspaces_from = "/dev/zero"\n')
    with pytest.raises(ConfigError, match="/dev/zero: has more than"):
        read_config(path)


def test_a_pipe_is_read_if_somebody_writes_into_it(tmp_path: Path) -> None:
    """As a shell gives one: mirror --config <(make-it); otherwise it is refused, and not waited for."""
    pipe, filled = tmp_path / "mirror.toml", b'database = "m.db"'
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="a pipe that nobody writes into; give a file"):
        read_config(pipe)
    reading, writing = os.pipe()

    def write() -> None:
        os.write(writing, filled)
        os.close(writing)

    writer = threading.Timer(0.05, write)
    writer.start()
    assert read_config(Path(f"/dev/fd/{reading}")).database == "/dev/fd/m.db"
    writer.join()
    os.close(reading)


@pytest.mark.parametrize(
    "database", ["", " ", ":memory:", "file:mirror.db", "file:mirror.db?mode=ro", "a\\u0000b", ".", "/"]
)
def test_an_invalid_database_path_is_refused(database: str) -> None:
    """Also names that SQLite would not read as a file."""
    with pytest.raises(ConfigError, match=r"line 1: database: .* is not a file path"):
        from_toml(f'database = "{database}"')
