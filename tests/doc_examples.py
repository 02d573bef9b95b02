"""The examples of README.md, docs/ and contrib/: found, run in a prepared folder, compared in shape."""

import contextlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from asgi_client import AsgiClient, basic
from click.testing import CliRunner

from mirror.cli.main import mirror
from mirror.cli.serve import application, arrange
from mirror.config import read_config

ROOT = Path(__file__).resolve().parent.parent
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "contrib").glob("*.md"))]

_CODE = re.compile(
    r"^```(?:console|bash|sh|)\n(.*?)^```$|(?:^    [^\n]*\n(?:\n(?=    ))?)+", re.DOTALL | re.MULTILINE
)
_COMMAND = re.compile(r"(\$ )?((?:mirror|curl) [-'\"a-z].*)")
_SHAPES = (
    (r"mir_[\w…-]+", "mir_…"),
    (r"\w{3}, \d\d \w{3} \d{4} [\d:]+ GMT", "TIME"),
    (r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?: UTC|Z)?)?", "TIME"),
    (r"\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,40}\b", "HASH"),
    (r"\b\d[\d,.]*\b", "N"),
    (r"\bN (?:s|min|h|days?|months?|years?)\b", "AGE"),
)
"""What differs from mirror to mirror."""


class Example(NamedTuple):
    """A command that a text shows, and the lines that it shows below it; "" where it shows none."""

    file: str
    command: str
    shown: str


def examples(path: Path) -> list[Example]:
    """Return the commands of a text in their order: `mirror` and `curl`, with the pipe on their line.

    Only a command with a prompt has output; a command goes on after a backslash.
    """
    found = list[Example]()
    for block in _CODE.finditer(path.read_text("utf-8")):
        text = block[0] if block[1] is None else block[1]
        prompted = False
        for line in text.replace("\\\n", " ").splitlines():
            stripped = line.strip() if block[1] is None else line.rstrip()
            command = _COMMAND.match(stripped)
            if command:
                prompted = command[1] is not None
                found.append(Example(path.name, _without_comment(command[2]), ""))
            elif stripped and prompted and not stripped.startswith("$ "):
                found[-1] = found[-1]._replace(shown=f"{found[-1].shown}{stripped}\n")
            elif not stripped or stripped.startswith("$ "):
                prompted = False
    return found


def _without_comment(command: str) -> str:
    return re.sub(r"\s+# .*|\s*\|\s*$|\s*&&.*", "", command)


def shape(text: str) -> list[str]:
    """Return the kinds of lines of a text: what differs from mirror to mirror taken out, repetitions once.

    A row that begins with the name of a repository ends with a text of its owner's.
    """
    return [kind for kind, _ in groupby(_kind(line) for line in text.splitlines() if line.strip())]


def _kind(line: str) -> str:
    columns = re.split(r" {2,}", line.strip())
    for pattern, kind in _SHAPES:
        columns = [re.sub(pattern, kind, column) for column in columns]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", columns[0]) and len(columns) > 2:
        return "  ".join(["OWNER/SLUG", re.sub("^(git|hg)$", "SCM", columns[1]), columns[2], "TEXT"])
    return "  ".join(columns)


def has_shape(shown: str, printed: str) -> bool:
    """Return whether lines are printed as they are shown; a line `…` stands for any lines, or none."""
    pattern = "".join("(?:.*\n)*" if kind == "…" else f"{re.escape(kind)}\n" for kind in shape(shown))
    return re.fullmatch(pattern, "".join(f"{kind}\n" for kind in shape(printed))) is not None


class Printed(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    text: str


class Place:
    """A folder with a mirror and its configuration, in which examples run in this process.

    The folders `/srv`, `/mnt` and `/etc` of examples are in it; the served mirror is this one, and `sandbox`
    is the address of the one that the mirror is of.
    """

    def __init__(self, folder: Path, sandbox: str) -> None:
        self._folder, self._sandbox = folder, sandbox
        self._served: AsgiClient | None = None
        self._token = ""

    def run(self, command: str) -> Printed:
        """Run a command, with what it is piped into or written to."""
        command = re.sub(r"mir_…|\bTOKEN\b", self._token, command)
        command = re.sub(r"(?<![\w.:/])/(srv|mnt|etc)/", rf"{self._folder}/\1/", command)
        plain, pipe, rest = re.match(r"((?:'[^']*'|\"[^\"]*\"|[^|>'\"])*)([|>]?)(.*)", command).groups()  # type: ignore[union-attr]
        words = shlex.split(plain)
        with contextlib.chdir(self._folder):
            printed = self._mirror(words[1:]) if words[0] == "mirror" else self._curl(words[1:])
            self._token = next(iter(re.findall(r"mir_\S+", printed.text)), self._token)
            if pipe == "|":
                done = subprocess.run(
                    ["sh", "-c", rest], input=printed.text, capture_output=True, text=True, check=False
                )
                return Printed(done.returncode, done.stdout)
            if pipe == ">":
                Path(rest.strip()).write_text(printed.text, "utf-8")
        return printed

    def _mirror(self, words: list[str]) -> Printed:
        if words == ["init"]:
            words += ["new.toml"]
        done = CliRunner().invoke(mirror, words, input="y\n")
        code = getattr(done.exception, "exit_code", done.exit_code)
        return Printed(code, done.stdout if code == 0 else f"{done.output}{done.exception}")

    def _curl(self, words: list[str]) -> Printed:
        headers, data, address, with_headers = {"Host": "127.0.0.1:8001"}, list[str](), "", False
        given = iter(words)
        for word in given:
            if word == "-H":
                name, _, value = next(given).partition(": ")
                headers[name] = value
            elif word in ("-u", "--user"):
                headers |= basic(*next(given).split(":"))
            elif word == "-d":
                data.append(next(given))
            elif word == "-i":
                with_headers = True
            elif word != "-s":
                address = word
        answer = self._ask("POST" if data else "GET", address, headers, "&".join(data).replace(" ", "+"))
        lines = [f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}"]
        lines += [f"{name.title()}: {value}" for name, value in answer.headers.items()]
        text = "".join(f"{line}\n" for line in lines) if with_headers else ""
        return Printed(answer.is_error, text + answer.text)

    def _ask(self, method: str, address: str, headers: dict[str, str], body: str) -> httpx.Response:
        if body:
            headers = headers | {"Content-Type": "application/x-www-form-urlencoded"}
        served, path = address.split("/", 3)[2], "/" + address.split("/", 3)[3]
        if served.endswith(":8002"):
            origin = self._sandbox.removesuffix("/2.0")
            headers = {name: value for name, value in headers.items() if name != "Host"}
            return httpx.request(method, origin + path, headers=headers, content=body)
        if self._served is None:
            config = read_config(self._folder / "mirror.toml")
            datasette = application(config)
            arrange(datasette, config)
            self._served = AsgiClient(datasette)
        return self._served(method, path, headers=headers, content=body)


def json_blocks(path: Path) -> Iterator[str]:
    """Yield the JSON that a text shows in blocks, or as members on lines of their own."""
    text = path.read_text("utf-8")
    yield from re.findall(r"^```json\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    yield from (f"{{{line}}}" for line in re.findall(r'^    ("\w+": \{.*\})$', text, re.MULTILINE))


def parsed(shown: str) -> tuple[Any, bool]:
    """Return the JSON that is shown, and whether all of it is: `…` at its end stands for the rest.

    A key alone, `{"a", "b"}`, is one whose value is left out.
    """
    whole = not shown.rstrip().endswith("…")
    text = shown.rstrip(" ,…\n")
    if '":' not in text.partition(",")[0]:
        text = re.sub(r'("\w+")(?=\s*[,}])', r"\1: null", text)
    opened = list[str]()
    for sign in re.sub(r'"[^"]*"', "", text):
        if sign in "{[":
            opened.append("}" if sign == "{" else "]")
        elif sign in "}]":
            opened.pop()
    return json.loads(text + "".join(reversed(opened))), whole


def differences(shown: Any, printed: Any, *, whole: bool, place: str = "") -> list[str]:
    """Return the keys that only one of the two has; a value that is left out is not compared."""
    if isinstance(shown, list) and isinstance(printed, list):
        both = shown and printed
        return differences(shown[0], printed[0], whole=whole, place=f"{place}[]") if both else []
    if not (isinstance(shown, dict) and isinstance(printed, dict)):
        return []
    only = set(shown) - set(printed) | (set(printed) - set(shown) if whole else set())
    return [f"{place}.{key}" for key in sorted(only)] + [
        difference
        for key in shown.keys() & printed.keys()
        for difference in differences(shown[key], printed[key], whole=whole, place=f"{place}.{key}")
    ]
