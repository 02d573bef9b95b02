"""The name index: build it, keep it up to date, check it. docs/search.md explains its structure.

Triggers record what changes in `search_pending`. Call `update_after_page` in the transaction of each page of
a sync, `flush_step` at its end, `check_index` and `rebuild_index` to verify and repair.
"""

from mirror.search.index.backlog import flush_step, rebuild_index, update_after_page
from mirror.search.index.check import check_index

__all__ = ["check_index", "flush_step", "rebuild_index", "update_after_page"]
