"""The SQLite file and its only writer."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mirror.store.database import Store

__all__ = ["Store"]


def __getattr__(name: str) -> Any:
    """Import the writer on first use: commands that only read do not need it."""
    if name != "Store":
        raise AttributeError(name)
    from mirror.store.database import Store  # noqa: PLC0415

    return Store
