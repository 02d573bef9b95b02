"""An existing client of API 1.0 (PyPI's `bitbucket-api` 0.5.0), with one address changed, over real HTTP."""

import gc
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from socket import AF_INET, IPPROTO_TCP, TCP_NODELAY, socket
from typing import Any
from urllib.parse import urlsplit

import pytest
from asgi_client import make_tokens
from fake_writer import FakeWriter
from fixtures_db import FixtureDb
from live_server import serving


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the client closes none of its connections
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_old_client_reads_and_writes(mixed_db: FixtureDb) -> None:
    """It reads a user, repositories, tags and branches; it creates, updates and deletes."""
    client_library: Any = pytest.importorskip("bitbucket.bitbucket")
    made = make_tokens(mixed_db.store)
    with serving(mixed_db.path, writer=FakeWriter(mixed_db), writes=True) as address:
        client = client_library.Bitbucket("jespern", made["write"], "django-piston")
        client.URLS["BASE"] = f"{address}/!api/1.0/%s"
        assert client.get_user() == (True, client.get_user("jespern")[1])
        assert client.get_user()[1]["first_name"] == "Jesper"
        assert client.get_tags()[1]["0.2.1"]["raw_node"] == "b" * 40
        assert client.get_branches()[1]["default"]["node"] == "a" * 12
        assert client.get_privileges() == (True, {"teams": {}})
        assert {one["slug"] for one in client.repository.public()[1]} == {"django-piston", "shown"}
        assert "arriving" in {one["slug"] for one in client.repository.all()[1]}
        assert client.repository.get("arriving")[1]["is_private"] is True
        created = client.repository.create("Brand-New", scm="hg", private=False, description="mine")
        assert (created[0], created[1]["slug"], created[1]["state"]) == (True, "brand-new", "creating")
        assert client.repository.update("brand-new", name="Newer")[1]["slug"] == "newer"
        assert client.repository.delete("newer") == (True, "")
        assert client.repository.get("newer") == (False, "Service not found.")
        nobody = client_library.Bitbucket()
        assert nobody.get_user()[0] is False
    mixed_db.store.close()


def test_answers_do_not_wait_for_acknowledgements(mixed_path: Path) -> None:
    """Nagle's algorithm with delayed acknowledgements would cost 40 ms for each answer."""
    with serving(mixed_path, writes=True) as address:
        where = urlsplit(address)
        connection = HTTPConnection(str(where.hostname), where.port)
        connection.request("GET", "/1.0/repositories/jespern/django-piston/tags/")
        assert connection.getresponse().read()
        accepted = [one for one in gc.get_objects() if _is_accepted(one, where.port)]
        assert [one.getsockopt(IPPROTO_TCP, TCP_NODELAY) for one in accepted] == [1]
        connection.close()


def _is_accepted(one: object, port: int | None) -> bool:
    """Whether something is the server's end of a connection that is open."""
    with suppress(OSError):
        if type(one) is socket and one.family == AF_INET:  # `isinstance` would load lazy modules
            return one.getsockname()[1] == port and one.getpeername() is not None
    return False
