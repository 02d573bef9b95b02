"""Whether a connection comes from this machine, and from which of its system users.

Linux lists the sockets of all users in /proc/net. Each row has the address of the socket, the address it is
connected to, its state, user and inode. The row with the client's address is the client's socket. Only
established connections count: Linux lists sockets of ended processes as root's.
"""

import ipaddress
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROXY_HEADERS = frozenset({"x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded", "via"})
"""Headers that proxies add."""

PROC = Path("/proc/net")
TABLES = ("tcp", "tcp6")
_ESTABLISHED = "01"

Address = tuple[str, int]


def is_local(client: Any, headers: Mapping[str, str]) -> bool:
    """Return whether a request came from this machine directly, without a proxy.

    The Host header is checked because another site can make its name point here (DNS rebinding).
    """
    if not client or not PROXY_HEADERS.isdisjoint(headers):
        return False
    try:
        host = urlsplit("//" + headers.get("host", "")).hostname or ""
    except ValueError:  # an unbalanced bracket
        return False
    return is_loopback(str(client[0])) and is_loopback(host)


def is_loopback(address: str) -> bool:
    """Return whether an address (or the name localhost) is a loopback address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


class Peers:
    """The sockets of this machine, as the kernel lists them in the folder `proc`."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc

    def are_listed(self) -> bool:
        """Return whether this system lists the owners of sockets."""
        return (self._proc / TABLES[0]).is_file()

    def is_ours(self, client: Address | None, server: Address | None) -> bool:
        """Return whether the client's socket belongs to the system user of this process; False in doubt."""
        if client is None or server is None:
            return False
        try:
            wanted = (_plain(*client[:2]), _plain(*server[:2]))
            users = [user for table in TABLES for user in _users(self._proc / table, wanted)]
        except (OSError, ValueError, IndexError):
            return False
        return users == [os.geteuid()]


def _users(table: Path, wanted: tuple[str, str]) -> list[int]:
    """Return the users of the sockets in a table that connect these two addresses."""
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
    """Read an address as the kernel writes it: four-byte words in the machine's byte order, and a port."""
    host, _, port = text.partition(":")
    packed = bytes.fromhex(host)
    if sys.byteorder == "little":
        packed = b"".join(packed[at : at + 4][::-1] for at in range(0, len(packed), 4))
    return _plain(str(ipaddress.ip_address(packed)), int(port, 16))


def _plain(host: str, port: int) -> str:
    """Normalise an address; an IPv4 address inside an IPv6 one becomes the IPv4 address."""
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return f"{mapped or address} {port}"
