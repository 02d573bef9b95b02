"""The SQLite file and its only writer."""

from mirror.store.store import Store

__all__ = ["Store"]
