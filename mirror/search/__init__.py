"""Search repositories by name: read-only, offline, exact. docs/search.md explains how.

`search` answers a query, `highlight_ranges` says which parts of a name to highlight, `register` adds both
to SQL. They work on any connection to a mirror, also a read-only one while a sync writes.
"""

from mirror.search.find import SearchResult, search
from mirror.search.highlight import highlight_ranges
from mirror.search.sql_functions import register

__all__ = ["SearchResult", "highlight_ranges", "register", "search"]
