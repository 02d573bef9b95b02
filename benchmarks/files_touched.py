"""Which files of `mirror/` one answer passes through: how much a reader has to open to follow it.

    python benchmarks/files_touched.py
    python benchmarks/files_touched.py --names

Serves a small mirror in this process, with writes that pass to a sandbox, and makes each request a few times:
the last one counts, when every thread has its connection. Frames of the sandbox, which stands for the
upstream, are not counted.
"""

import argparse
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from asgi_client import AsgiClient, basic, client_of, make_tokens
from webhook_client import SECRET, body_of, signature
from write_harness import WriteHarness, writable

from mirror.serve.webhooks import Hook, accept
from mirror.store import Store

HERE = f"{Path(__file__).resolve().parent.parent}/mirror/"
SOME = "jespern/django-piston"
TURNS = 8


class Trace:
    """Counts the calls of each function of the product while it is on."""

    def __init__(self) -> None:
        self.calls = Counter[tuple[str, str]]()
        self.on = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Note one event of the profiler; called by Python."""
        code = frame.f_code
        if self.on and event == "call" and code.co_filename.startswith(HERE):
            name = code.co_filename.removeprefix(HERE)
            if not name.startswith("sandbox/"):
                self.calls[name, code.co_qualname] += 1

    def of(self, name: str, request: Callable[[int], Any]) -> Counter[tuple[str, str]]:
        """Return the calls that a request makes once everything is warm; it must be answered."""
        for turn in range(TURNS):
            self.calls.clear()
            self.on = True
            answer = request(turn)
            self.on = False
            if answer.status_code != 200:
                raise SystemExit(f"{name}: {answer.status_code} {answer.text}")
        return self.calls.copy()


def requests(made: WriteHarness, ask: AsgiClient) -> dict[str, Callable[[int], Any]]:
    """Return what is measured; each is called with the number of its turn."""
    with Store(made.path) as store:
        login = basic("jespern", make_tokens(store)["write"])
    ((uuid,),) = made.rows(f"SELECT uuid FROM repositories WHERE full_name = '{SOME}'")

    def push(turn: int) -> Any:
        words = {"NAME": SOME, "UUID": uuid, "OLD": "a" * 40, "NEW": f"{turn + 1:040x}"}
        body = body_of("cloud_push.json", **words)
        headers = {
            "X-Event-Key": "repo:push",
            "X-Request-UUID": str(turn),
            "X-Hub-Signature": signature(body),
        }
        return ask("POST", "/-/webhook/s", content=body, headers=headers)

    return {
        "GET of API 1.0": lambda _: ask.get(f"/1.0/repositories/{SOME}"),
        "GET of API 2.0": lambda _: ask.get(f"/2.0/repositories/{SOME}"),
        "keystroke": lambda _: ask.get("/-/search/options?q=djan"),
        "webhook": push,
        "POST create": lambda turn: ask(
            "POST", "/1.0/repositories/", data={"name": f"new {turn}"}, headers=login
        ),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", action="store_true", help="list each file with its functions")
    asked = parser.parse_args()
    trace = Trace()
    threading.setprofile(trace)  # threads that begin later
    sys.setprofile(trace)
    with tempfile.TemporaryDirectory() as folder, writable(Path(folder)) as made:
        ask = client_of(made.path, writes=True, writer=made.writes)
        accept(ask.datasette, {"s": Hook(SECRET, datacenter=False)})
        print(f"{'':16}{'files':>8}{'functions':>12}{'calls':>8}")
        for name, request in requests(made, ask).items():
            calls = trace.of(name, request)
            files = sorted({file for file, _ in calls})
            print(f"{name:16}{len(files):8}{len(calls):12}{calls.total():8}")
            for file in files if asked.names else ():
                listed = ", ".join(f"{call} {n}" for (at, call), n in sorted(calls.items()) if at == file)
                print(f"    {file}: {listed}")


if __name__ == "__main__":
    main()
