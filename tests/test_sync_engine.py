"""The threads of a crawl."""

import os
import sys
import threading
from collections.abc import Sequence

import pytest

from mirror.errors import Interrupted, MirrorError
from mirror.sync.engine import Step, run_steps

Cores = set[int]


class WhereStep(Step):
    """Tells on which cores it may be asked and saved."""

    def __init__(self, places: list[tuple[Cores, Cores]], error: MirrorError | None) -> None:
        self.places, self.error = places, error

    def ask(self) -> Cores:
        return os.sched_getaffinity(0)

    def save(self, answer: Cores) -> Sequence[Step]:
        self.places.append((answer, os.sched_getaffinity(0)))
        if self.error:
            raise self.error
        return []

    def failed(self, error: MirrorError) -> Sequence[Step]:
        raise error


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a thread on a core")
@pytest.mark.parametrize("error", [None, Interrupted("stopped")])
def test_all_threads_of_a_crawl_are_on_one_core(error: MirrorError | None) -> None:
    """They would hand Python's lock from core to core; after the crawl, its thread may use all as before."""
    before, places = os.sched_getaffinity(0), list[tuple[Cores, Cores]]()
    steps = [WhereStep(places, error) for _ in range(9)]
    try:
        run_steps(steps, threads=3, stop=threading.Event())
    except Interrupted:
        assert error
    asked_and_saved = [core for place in places for core in place]
    assert len(asked_and_saved) == (2 if error else 18)
    assert all(cores == asked_and_saved[0] and len(cores) == 1 for cores in asked_and_saved)
    assert os.sched_getaffinity(0) == before
