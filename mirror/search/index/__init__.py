"""The name index: build it, keep it up to date, check it. docs/search.md explains its structure.

Triggers record what changes in `search_pending`. Call `update_after_page` of `backlog` in the
transaction of each page of a sync, `finish_step` at its end, `check_index` of `check` and `rebuild_index` to
verify and repair.
"""
