"""The readers of a soak test: endless requests for search, both APIs, SQL and pages.

What they request exists all the time, so every response but the right one is a failure. No response at all
counts as a restart if the service was down since the request, otherwise as a failure.
"""

import random
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import httpx
from soak_service import Service

WITHOUT_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody: to read certificates takes longer than a request, and each failure makes a client."""


class Read(NamedTuple):
    """A kind of request: its path, whether it needs the token, and what the response must contain."""

    kind: str
    path: str
    token: bool = True
    status: tuple[int, ...] = (200,)
    says: Callable[[Any], bool] | None = None


class Readers:
    """Threads that read, each with a pause in seconds after a request.

    `latencies` are seconds by kind, `problems` the failures.
    """

    def __init__(
        self, service: Service, token: str, still: list[dict[str, Any]], seed: int, pause: float
    ) -> None:
        self.latencies = dict[str, list[float]]()
        self.problems = list[str]()
        self.restarts = 0
        self._service, self._token, self._still = service, token, still
        self._seed, self._pause = seed, pause
        self._turn = threading.Lock()

    def work(self, number: int, stop: threading.Event) -> None:
        """Read until `stop` is set."""
        pick = random.Random(self._seed + number)
        client = self._client()
        while not stop.is_set():
            if not self._ask(client, self._question(pick)):
                client.close()
                client = self._client()
                stop.wait(0.2)
            stop.wait(self._pause)
        client.close()

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self._service.address, trust_env=False, timeout=10, verify=WITHOUT_TLS)

    def _ask(self, client: httpx.Client, read: Read) -> bool:
        """Send one request; return whether there was a response."""
        began = time.monotonic()
        headers = {"Authorization": f"Bearer {self._token}"} if read.token else {}
        try:
            answer = client.get(read.path, headers=headers)
        except httpx.HTTPError as error:
            with self._turn:
                if self._service.is_down(began):
                    self.restarts += 1
                else:
                    self.problems.append(f"{read.kind}: {read.path}: {error!r}")
            return False
        seconds = time.monotonic() - began
        wrong = _wrong(answer, read)
        with self._turn:
            self.latencies.setdefault(read.kind, []).append(seconds)
            if wrong:
                self.problems.append(f"{read.kind}: {read.path}: {wrong}")
        return True

    def _question(self, pick: random.Random) -> Read:
        row = pick.choice(self._still)
        name, slug, hidden = row["full_name"], row["slug"], row["is_private"]
        owner, part = name.partition("/")[0], slug[: pick.randint(3, 8)]
        sql = "select count(*) as n from repositories where deleted_at is null"
        path, word = quote(name), urlencode({"q": part})
        questions = (
            Read("search", f"/-/search.json?{urlencode({'q': name})}", says=_finds(name)),
            Read("search", f"/-/search.json?{word}", says=lambda body: body["count"] > 0),
            Read("search", f"/-/search.json?{word}", token=False, says=_all_public),
            Read("page", f"/-/search?{word}"),
            Read("page", f"/-/r/{path}"),
            Read("page", pick.choice(["/", "/-/changes", "/-/mirror-status", "/-/changes.atom"])),
            Read("api 1.0", f"/1.0/repositories/{path}", says=lambda body: body["slug"] == slug),
            Read("api 1.0", f"/1.0/repositories/{path}/tags"),
            Read("api 1.0", f"/1.0/repositories/?name={quote(part)}&limit=20"),
            Read("api 2.0", f"/2.0/repositories/{path}", says=lambda body: body["full_name"] == name),
            Read("api 2.0", f"/2.0/repositories/{path}/refs?pagelen=50"),
            Read("api 2.0", f"/2.0/repositories/{owner}?pagelen=50&sort=-updated_on"),
            Read("sql", f"/mirror.json?{urlencode({'sql': sql, '_shape': 'array'})}", says=_counts),
            Read(
                "sql", f"/mirror/repositories.json?_shape=array&{urlencode({'full_name': name})}", says=_one
            ),
            Read("sql", "/mirror/changed_this_week.json?_shape=array"),
            Read("hidden", f"/2.0/repositories/{path}", token=False, status=(403, 404) if hidden else (200,)),
            Read("hidden", f"/-/r/{path}", token=False, status=(403, 404) if hidden else (200,)),
            Read("watch", "/-/health"),
            Read("watch", "/-/metrics"),
        )
        return pick.choice(questions)


def _wrong(answer: httpx.Response, read: Read) -> str:
    """Return what is wrong with a response, "" if nothing."""
    if answer.status_code not in read.status:
        return f"{answer.status_code}: {answer.text[:200]}"
    if read.says is not None and not read.says(answer.json()):
        return f"not what was asked for: {answer.text[:200]}"
    return ""


def _finds(name: str) -> Callable[[Any], bool]:
    return lambda body: any(row["full_name"] == name for row in body["repositories"])


def _all_public(body: Any) -> bool:
    return not any(row["is_private"] for row in body["repositories"])


def _counts(body: Any) -> bool:
    return bool(body[0]["n"] > 0)


def _one(body: Any) -> bool:
    return len(body) == 1
