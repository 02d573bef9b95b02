"""Search branches and tags of all repositories by name or commit: read-only, exact (docs/refs.md).

`search_refs` of `find` answers a query, `register_refs` adds it to SQL. They work on any connection to a
mirror, also a read-only one while a sync writes.
"""
