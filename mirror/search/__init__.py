"""Search repositories by name: read-only, offline, exact. docs/search.md explains how.

`search` answers a query, `highlight_ranges` says which parts of a name to highlight, `register` adds both
to SQL. They work on any connection to a mirror, also a read-only one while a sync writes.
"""

from mirror.search.find import SearchResult, register, search
from mirror.search.names import highlight_ranges

__all__ = ["SearchResult", "highlight_ranges", "register", "search"]
