"""The index of refs by name and by commit: build it, keep it up to date, check it. docs/refs.md explains it.

Triggers record what changes in `search_ref_pending` and `search_ref_moved`. Call `update_after_refs` of
`changes` in the transaction that wrote refs, `flush_refs_step` at the end of a sync, `check_refs_index` of
`verify` and `rebuild_refs_index` to verify and repair.
"""
