"""The upstreams of the file, and where people see at each what the mirror holds."""

import sqlite3
from collections.abc import Mapping

import msgspec

from mirror.addresses import web_of
from mirror.queries.memory import file_state
from mirror.queries.rows import fetch_as


class UpstreamRow(msgspec.Struct, frozen=True):
    """A row of `upstreams`: `url` is the address of its API."""

    id: int
    name: str
    kind: str
    url: str

    @property
    def web(self) -> str:
        """The address of its pages for people, without a slash at the end."""
        return web_of(self.url)


Upstreams = Mapping[int, UpstreamRow]


def upstreams_of(connection: sqlite3.Connection) -> Upstreams:
    """Read all upstreams, by the numbers of their rows: once for each state of the file."""
    known = file_state(connection)
    if not known.upstreams:
        found = fetch_as(UpstreamRow, connection, "SELECT id, name, kind, url FROM upstreams ORDER BY id")
        known.upstreams.update((row.id, row) for row in found)
    return known.upstreams
