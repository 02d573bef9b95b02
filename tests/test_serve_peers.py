"""Who owns a connection on this machine: the kernel's list of sockets, and who is trusted by it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from asgi_client import AsgiClient, basic
from datasette.app import Datasette
from live_server import serving

from mirror.config import ServeConfig
from mirror.errors import ConfigError
from mirror.serve.connections import Peers
from mirror.serve.server import build

ME, OTHER = os.geteuid(), os.geteuid() + 1
HEADING = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
CLIENT, SERVER = ("127.0.0.1", 0xC350), ("127.0.0.1", 0x1F41)
NOBODY = 65_534
FORWARDER = f"""
import encodings.idna, os, socket, sys, threading
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def pump(source, target):
    while data := source.recv(65536):
        target.sendall(data)
while True:
    client, _ = listener.accept()
    server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    for pair in ((client, server), (server, client)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


def row(*, client: str = "0100007F:C350", state: str = "01", uid: int = ME, inode: int = 7) -> str:
    """Write a row of /proc/net/tcp for the caller's socket."""
    return (
        f"   0: {client} 0100007F:1F41 {state} 00000000:00000000 00:00000000 00000000 {uid:5} 0 {inode} 1\n"
    )


def listed(folder: Path, rows: str, rows6: str = "") -> Peers:
    """Write a list of sockets."""
    (folder / "tcp").write_text(HEADING + rows)
    if rows6:
        (folder / "tcp6").write_text(HEADING + rows6)
    return Peers(folder)


@pytest.mark.parametrize(
    ("rows", "ours"),
    [
        (row(), True),
        (row(uid=OTHER), False),
        (row(state="06", uid=0, inode=0), False),
        (row(state="05"), False),
        (row(inode=0), False),
        (row() + row(uid=OTHER), False),
        (row(client="0100007F:C351"), False),
        (row(client="0200007F:C350"), False),
        ("", False),
        ("   0: nonsense\n", False),
    ],
)
@pytest.mark.skipif(sys.byteorder != "little", reason="the rows are of a little-endian machine")
def test_a_socket_of_this_user_is_trusted(tmp_path: Path, rows: str, *, ours: bool) -> None:
    """Not another user's, a closed or unlisted one, or any if the list cannot be read."""
    assert listed(tmp_path, rows).is_ours(CLIENT, SERVER) is ours


def test_addresses_of_both_families_are_read(tmp_path: Path) -> None:
    """An IPv4 address inside an IPv6 one is the same; without a list, nobody is trusted."""
    mapped = row(client="0000000000000000FFFF00000100007F:C350").replace(
        " 0100007F:1F41", " 0000000000000000FFFF00000100007F:1F41"
    )
    assert listed(tmp_path, "", mapped).is_ours(CLIENT, SERVER)
    own = row(client="00000000000000000000000001000000:C350").replace(
        " 0100007F:1F41", " 00000000000000000000000001000000:1F41"
    )
    assert listed(tmp_path, "", own).is_ours(("::1", 0xC350), ("::1", 0x1F41))
    assert not Peers(tmp_path / "nowhere").is_ours(CLIENT, SERVER)
    assert not Peers(tmp_path).is_ours(None, SERVER)


def test_trust_is_refused_where_the_peer_is_unknown(tmp_path: Path, mixed_path: Path) -> None:
    """At the start, with the remedy, under `mirror serve`."""
    with pytest.raises(ConfigError, match="only Linux"):
        build(mixed_path, ServeConfig(trust_basic_user=True), peers=Peers(tmp_path / "nowhere"))


@contextmanager
def forwarder(port: int) -> Iterator[int]:
    """Forward TCP as another user; give the port."""
    with subprocess.Popen(
        [sys.executable, "-c", FORWARDER, str(port)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a program as another user")
@pytest.mark.skipif(not Peers().are_listed(), reason="this system does not tell whose a socket is")
def test_a_forwarder_of_another_user_is_not_trusted(mixed_path: Path) -> None:
    """The same request, directly and through another user's program."""
    with serving(mixed_path, trust_basic_user=True) as address:
        port = int(address.rpartition(":")[2])
        path, login = "/1.0/repositories/jespern/arriving", basic("jespern", "x")
        assert httpx.get(f"{address}{path}", headers=login).json()["is_private"]
        with forwarder(port) as other:
            answer = httpx.get(f"http://127.0.0.1:{other}{path}", headers=login)
            assert answer.status_code == 401
            page = httpx.get(f"http://127.0.0.1:{other}/-/r/jespern/arriving", headers=login)
            assert page.status_code == 401


def test_plain_datasette_checks_the_socket(mixed_path: Path) -> None:
    """Its settings come from elsewhere, with the same rules: no trust without a socket."""
    metadata = {"plugins": {"bitbucket-mirror": {"trust_basic_user": True}}}
    plain = AsgiClient(Datasette([str(mixed_path)], metadata=metadata))
    headers = {**basic("jespern", "x"), "Host": f"localhost:{socket.SOMAXCONN}"}
    assert plain.get("/1.0/user", headers=headers).status_code == 401
