"""Commands in a Python that was started for them, by its own options and variables, and forks for each."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from cli_runner import WARNINGS, Finished, Folder, finished

_PROGRAM = """
import json, os, sys
from mirror.cli import main
for line in sys.stdin.buffer:
    if child := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(1, b"\\0%d\\n" % code)
        os.write(2, b"\\0\\n")
        continue
    sys.argv = ["mirror", *json.loads(line)]
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    sys.stdout.flush()
    os._exit(code)
"""


@contextmanager
def fresh_python(
    folder: Folder, *, within: Sequence[str] = (), **environment: str
) -> Iterator[Callable[..., Finished]]:
    """Start it in a folder, `within` a command that starts another; give what runs `mirror` in it."""
    with subprocess.Popen(
        [*within, sys.executable, *WARNINGS, "-c", _PROGRAM],
        cwd=folder.path,
        env=folder.environment(**environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        streams = process.stdin, process.stdout, process.stderr

        def run(*words: str) -> Finished:
            streams[0].write(json.dumps(words).encode() + b"\n")
            streams[0].flush()
            (out, code), (err, _) = (_until_mark(stream) for stream in streams[1:])
            return finished(int(code), out, err)

        yield run


def _until_mark(stream: Iterator[bytes]) -> tuple[str, str]:
    """Read what a command has written to its end, and what is told of it."""
    written = b""
    for line in stream:
        written += line
        if b"\0" in line:
            break
    said, _, told = written.decode().partition("\0")
    return said, told
