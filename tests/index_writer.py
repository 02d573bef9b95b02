"""Pages of repositories for tests of the index of names, and a process that saves them until it is killed."""

from multiprocessing.connection import Connection
from pathlib import Path

from mirror.model import Owner, Repository
from mirror.store import Store
from mirror.store.repositories import Look

OWNER = Owner(uuid="ann", username="ann")
SEEN = "2026-01-01T00:00:00.000000Z"


def page(first: int, size: int = 100, *, suffix: str = "") -> list[Repository]:
    """Return repositories whose names have much in common; `suffix` renames them."""
    return [
        Repository(
            uuid=str(number),
            owner=OWNER,
            slug=f"tool-{number % 37}-{number}{suffix}",
            name=f"Tool {number % 37} {number}{suffix}",
            full_name=f"ann/tool-{number}",
            followers_count=number % 11,
            is_private=number % 5 == 0,
        )
        for number in range(first, first + size)
    ]


def save(store: Store, rows: list[Repository], *, first: bool) -> None:
    """Save a page as a sync does."""
    store.save_page(1, rows, Look(SEEN, first_listing=first))


def write_until_killed(path: Path, ready: Connection) -> None:
    """Save pages, update the index and rebuild it, in a process of its own."""
    with Store(path) as store:
        ready.send(None)
        for turn in range(1000):
            save(store, page(turn * 50, 100), first=turn % 7 == 0)
            save(store, page(turn * 30, 40, suffix="-next" * (turn % 3)), first=False)
            if turn % 5 == 4:
                store.finish_search_index()
            if turn % 11 == 10:
                store.rebuild_search_index()
