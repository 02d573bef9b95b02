"""Who is at the other end of a connection: whether this machine, and which of its system users.

Linux lists the sockets of all users in /proc/net. A row there is a socket, with its own address, the one it
is connected to, its state, its user and its inode. The socket of a caller on this machine is the row whose
own address is the caller's. Only an open connection counts: a socket that is left over from a process that
has ended is listed as root's.
"""

import ipaddress
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROXIES_SAY = frozenset({"x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded", "via"})
"""Headers that proxies add."""

PROC = Path("/proc/net")
TABLES = ("tcp", "tcp6")
_ESTABLISHED = "01"

Address = tuple[str, int]


def is_local(client: Any, headers: Mapping[str, str]) -> bool:
    """Tell whether a request was sent by this machine, to this machine, without a proxy between.

    The Host header is looked at because a foreign page can have its own name point here (DNS rebinding).
    """
    if not client or not PROXIES_SAY.isdisjoint(headers):
        return False
    try:
        host = urlsplit("//" + headers.get("host", "")).hostname or ""
    except ValueError:  # half a bracket
        return False
    return is_loopback(str(client[0])) and is_loopback(host)


def is_loopback(address: str) -> bool:
    """Tell whether an address, or the name localhost, is this machine alone."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


class Peers:
    """The sockets of this machine, as the kernel lists them in a folder."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc

    def are_listed(self) -> bool:
        """Tell whether this system says whose a socket is."""
        return (self._proc / TABLES[0]).is_file()

    def is_ours(self, client: Address | None, server: Address | None) -> bool:
        """Tell whether a caller's socket belongs to the system user of this process; any doubt is a no."""
        if client is None or server is None:
            return False
        try:
            wanted = (_plain(*client[:2]), _plain(*server[:2]))
            users = [user for table in TABLES for user in _users(self._proc / table, wanted)]
        except (OSError, ValueError, IndexError):
            return False
        return users == [os.geteuid()]


def _users(table: Path, wanted: tuple[str, str]) -> list[int]:
    """List the users of the sockets of a table that have these two addresses."""
    found = list[int]()
    try:
        lines = table.read_text("ascii").splitlines()[1:]
    except FileNotFoundError:  # a system without IPv6
        return found
    port = f":{int(wanted[0].rpartition(' ')[2]):04X}"
    for line in lines:
        # sl, local_address, rem_address, st, queues, timer, retransmits, uid, timeout, inode
        fields = line.split()
        if not fields[1].endswith(port):
            continue
        if (_read(fields[1]), _read(fields[2])) == wanted and fields[3] == _ESTABLISHED and fields[9] != "0":
            found.append(int(fields[7]))
    return found


def _read(text: str) -> str:
    """Read an address as the kernel writes it: words of four bytes in the machine's order, and a port."""
    host, _, port = text.partition(":")
    packed = bytes.fromhex(host)
    if sys.byteorder == "little":
        packed = b"".join(packed[at : at + 4][::-1] for at in range(0, len(packed), 4))
    return _plain(str(ipaddress.ip_address(packed)), int(port, 16))


def _plain(host: str, port: int) -> str:
    """Write an address in one way; an IPv4 address inside an IPv6 one is that IPv4 address."""
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return f"{mapped or address} {port}"
