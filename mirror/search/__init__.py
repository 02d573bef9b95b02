"""Search by name: read-only, offline, exact. See docs/search.md.

`search` answers a query, `mark` says what to highlight, `register` gives both to SQL. Any connection to a
mirror will do, also a read-only one beside a sync that writes.
"""

from mirror.search.find import Found, search
from mirror.search.highlight import mark
from mirror.search.sql_functions import register

__all__ = ["Found", "mark", "register", "search"]
