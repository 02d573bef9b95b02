"""Keeping the name index: triggers note what changes, and it is settled now and then. See docs/search.md.

`keep_up` belongs into a page's transaction, `settle` to the end of a sync, `check` and `rebuild` to those who
doubt.
"""

from mirror.store.index.check import check
from mirror.store.index.settle import keep_up, rebuild, settle

__all__ = ["check", "keep_up", "rebuild", "settle"]
