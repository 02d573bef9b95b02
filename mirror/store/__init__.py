"""The SQLite file and its only writer."""

from mirror.store.database import Store

__all__ = ["Store"]
