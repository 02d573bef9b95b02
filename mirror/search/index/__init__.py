"""Keeping the name index: triggers note what changes, and it is settled now and then. See docs/search.md.

`keep_up` belongs into a page's transaction, `settle` to the end of a sync, `check` and `rebuild` to those who
doubt.
"""

from mirror.search.index.check import check
from mirror.search.index.maintain import keep_up, rebuild, settle

__all__ = ["check", "keep_up", "rebuild", "settle"]
