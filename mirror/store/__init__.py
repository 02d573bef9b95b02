"""The SQLite file and its only writer."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mirror.store.database import Store

__all__ = ["Store"]


def __getattr__(name: str) -> Any:
    """Import the writer where it is named: commands that read use the other files of this folder only."""
    if name != "Store":
        raise AttributeError(name)
    from mirror.store.database import Store  # noqa: PLC0415

    return Store
