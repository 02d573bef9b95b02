"""The webhooks of a soak test: signed, lost, late, repeated, forged or damaged."""

import hashlib
import heapq
import hmac
import json
import random
import threading
import time
from collections import Counter
from itertools import count

import httpx
from soak_service import SECRETS, Service
from soak_world import Event

FATES = {"sent": 70, "lost": 10, "twice": 7, "late": 5, "forged": 3, "unsigned": 2, "broken": 2, "huge": 1}
"""What happens to an event on its way, and the relative frequencies."""

EXPECTED = {"forged": {403}, "unsigned": {403}, "broken": {400}, "huge": {413}, "again": {200, 202}}
"""The correct statuses by fate; a 404 is counted separately from accepted events."""

TAKEN = {200, 202}


class Courier:
    """Delivers events to the service, one after the other, or does what else happens to them."""

    def __init__(self, service: Service, seed: int) -> None:
        self.outcomes = Counter[str]()
        self.latencies = list[float]()
        self.problems = list[str]()
        self._service, self._random = service, random.Random(seed)
        self._waiting = list[tuple[float, int, str, Event, str]]()
        self._numbers = count()
        self._turn = threading.Lock()

    def take(self, event: Event) -> None:
        """Accept an event, and decide what happens to it."""
        fate, now = self._random.choices(list(FATES), list(FATES.values()))[0], time.monotonic()
        number = next(self._numbers)
        if fate == "lost":
            self.outcomes["lost"] += 1
            return
        later = self._random.uniform(3, 20) if fate == "late" else 0.0
        self._put(now + later, fate, event, f"delivery-{number}")
        if fate == "twice":
            self._put(now + self._random.uniform(0, 5), "again", event, f"delivery-{number}")

    def work(self, stop: threading.Event) -> None:
        """Deliver what is due, until `stop` is set and nothing is left."""
        with httpx.Client(trust_env=False, timeout=10) as client:
            while True:
                with self._turn:
                    due = self._waiting and self._waiting[0][0] <= time.monotonic()
                    item = heapq.heappop(self._waiting) if due else None
                    idle = not self._waiting
                if item is not None:
                    self._deliver(client, *item[2:])
                elif stop.is_set() and idle:
                    return
                else:
                    time.sleep(0.02)

    def _put(self, at: float, fate: str, event: Event, request: str) -> None:
        with self._turn:
            heapq.heappush(self._waiting, (at, next(self._numbers), fate, event, request))

    def _deliver(self, client: httpx.Client, fate: str, event: Event, request: str) -> None:
        began = time.monotonic()
        body = b"{" if fate == "broken" else json.dumps(event.body).encode()
        body += b" " * 1_000_001 if fate == "huge" else b""
        headers = {"X-Event-Key": event.key, "X-Request-UUID": request}
        if fate != "unsigned":
            secret = "of somebody else" if fate == "forged" else SECRETS["SOAK_HOOK"]
            headers["X-Hub-Signature"] = (
                "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            )
        try:
            answer = client.post(f"{self._service.address}/-/webhook/box", content=body, headers=headers)
        except httpx.HTTPError as error:
            if self._service.is_down(began):
                self.outcomes["restart"] += 1
            else:
                self.problems.append(f"webhook, {fate}: {error!r}")
            return
        seconds = time.monotonic() - began
        self.outcomes[f"{fate} {answer.status_code}"] += 1
        if answer.status_code not in EXPECTED.get(fate, TAKEN):
            self.problems.append(f"webhook, {fate}: {answer.status_code}: {answer.text[:200]}")
        elif answer.status_code == 200:
            self.latencies.append(seconds)
