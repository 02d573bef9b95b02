"""The environment: proxies and certificates are used, or refused with the name of the variable."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from random import Random
from threading import Thread

import httpx
import pytest
from cli_runner import Folder

from mirror.errors import ConfigError
from mirror.upstream.deadline import Deadline
from mirror.upstream.environment import (
    CERTIFICATE_VARIABLES,
    named_certificates,
    proxy_of,
    tls_remedy,
    trusting,
)
from mirror.upstream.transport import Connections

ONCE = "retry = { attempts = 1 }"
HASTY = 'retry = { attempts = 3, first_delay = "0.01s", max_delay = "0.01s" }'
LOCALHOST = Path(__file__).parent / "answers" / "localhost.pem"
"""A key and its certificate, which is its own authority."""
PROXIES = {"https": "http://proxy.example:3128", "all": "other.example"}


@pytest.mark.parametrize(
    ("no_proxy", "host", "is_direct"),
    [
        ("", "api.bitbucket.org", False),
        ("*", "api.bitbucket.org", True),
        ("bitbucket.org", "api.bitbucket.org", True),
        (".bitbucket.org", "bitbucket.org", True),
        ("*.bitbucket.org", "API.Bitbucket.org.", True),
        ("bucket.org", "bitbucket.org", False),
        ("localhost,127.0.0.1,::1,fd00::/8", "fd12::1", True),
        ("localhost,127.0.0.1,::1,fd00::/8", "api.bitbucket.org", False),
        ("10.0.0.0/8 192.168.0.0/16", "10.20.30.40", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("[::1]:443", "::1", True),
        ("git.example:443,git.example:8443", "git.example", True),
        ("git.example:8443", "git.example", False),
        ("https://git.example", "git.example", True),
        ("https://git.example/", "git.example", True),
        ("10.0.0.0/99,fe80::/129,[,::::,:0,/,.", "git.example", False),
        ("10.1.2.3/33,10.1.2.3/x,10.1.2.3/8:443,[::1]/129", "10.1.2.3", False),
    ],
)
def test_no_proxy_names_hosts_domains_addresses_and_networks(
    no_proxy: str, host: str, is_direct: bool
) -> None:
    """As curl and Go read it; invalid entries match nothing."""
    found = proxy_of("https", host, None, {**PROXIES, "no": no_proxy})
    assert found == (None if is_direct else PROXIES["https"])


def test_all_proxy_is_used_without_a_specific_proxy() -> None:
    """A value without a scheme is an HTTP proxy."""
    assert proxy_of("http", "git.example", 80, PROXIES) == "http://other.example"
    assert proxy_of("http", "git.example", 80, {"https": "http://proxy.example"}) is None


@pytest.mark.parametrize(
    "value",
    ["socks5://u:geheim@h:1080", "socks5h://h", "socks4://h", "ftp://h", "http://", "http://h:geheim"],
)
def test_a_proxy_that_cannot_be_used_is_refused_by_name(value: str) -> None:
    """Without the value, which may have a password."""
    with pytest.raises(ConfigError, match=r"all_proxy: .*no_proxy") as refused:
        proxy_of("https", "git.example", None, {"all": value})
    assert "geheim" not in str(refused.value)


class Refusing(BaseHTTPRequestHandler):
    """A proxy that wants a login, and records requests."""

    def do_GET(self) -> None:
        """Note the address and refuse."""
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(407)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_CONNECT = do_GET  # noqa: N815 - the name of the base class

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Say nothing."""


@contextmanager
def refusing(*, encrypted: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Run such a proxy; give its host and port, and what it was asked for."""
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        if encrypted:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(LOCALHOST)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        asked = server.asked = list[str]()  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"localhost:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_a_sync_uses_the_proxy_and_no_proxy(tmp_path: Path) -> None:
    """With networks in NO_PROXY; a SOCKS proxy gives no traceback."""
    folder = Folder(tmp_path)
    folder.configure("http://upstream.invalid/2.0", ONCE)
    with refusing() as (proxy, asked):
        through = folder.run("sync", http_proxy=proxy, no_proxy="fd00::/8,10.0.0.0/8")
        around = folder.run("sync", http_proxy=proxy, no_proxy="fd00::/8,.invalid")
        socks = folder.run("sync", ALL_PROXY=f"socks5://{proxy}", no_proxy="")
    assert (through.code, around.code, socks.code) == (4, 4, 2)
    assert [httpx.URL(path).host for path in asked] == ["upstream.invalid"]
    assert "all_proxy: SOCKS" in socks.err


@pytest.mark.parametrize("variable", CERTIFICATE_VARIABLES[::2])
def test_an_encrypted_proxy_is_trusted_as_the_upstream_is(tmp_path: Path, variable: str) -> None:
    """By the certificates that the environment names, even if the upstream itself needs none."""
    folder = Folder(tmp_path)
    folder.configure("http://upstream.invalid/2.0", ONCE)
    trusted = dict.fromkeys(CERTIFICATE_VARIABLES, "") | {variable: str(LOCALHOST)}
    with refusing(encrypted=True) as (proxy, asked):
        folder.run("sync", http_proxy=f"https://{proxy}", **trusted)
    assert [httpx.URL(path).host for path in asked] == ["upstream.invalid"]


def test_a_host_with_letters_that_are_not_ascii_is_reached_through_the_proxy(tmp_path: Path) -> None:
    """As any other."""
    folder = Folder(tmp_path)
    folder.configure("https://b\u00fccher.invalid/2.0", ONCE)
    with refusing() as (proxy, asked):
        folder.run("sync", https_proxy=proxy)
    assert asked == ["xn--bcher-kva.invalid:443"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_login_is_asked_once(tmp_path: Path, scheme: str) -> None:
    """Not once for each workspace, since more may lock the account there."""
    folder = Folder(tmp_path)
    folder.configure(f"{scheme}://upstream.invalid/2.0", 'workspaces = ["one", "two"]\nconcurrency = 1')
    with refusing() as (proxy, asked):
        ran = folder.run("sync", all_proxy=proxy)
    assert (ran.code, len(asked)) == (4, 1)
    assert "407" in ran.out
    assert "the proxy wants a login" in ran.out


def test_an_error_names_the_proxy_without_its_password(tmp_path: Path) -> None:
    """One that does not answer; one that wants a login, which is asked once, since more may lock it."""
    folder = Folder(tmp_path)
    with refusing() as (proxy, asked):
        folder.configure("https://upstream.invalid/2.0", HASTY)
        refused = folder.run("sync", https_proxy=f"http://u:geheim@{proxy}").out
    folder.configure("http://upstream.invalid/2.0", ONCE)
    dead = folder.run("sync", all_proxy=f"http://u:geheim@{proxy}").out
    assert asked == ["upstream.invalid:443"]
    assert f"cannot connect through the proxy {proxy} (https_proxy): 407" in refused
    assert "http://USER:PASSWORD@HOST:PORT" in refused
    assert f"cannot connect through the proxy {proxy} (all_proxy): " in dead
    assert "geheim" not in refused + dead


def test_unreadable_certificates_name_their_variable(tmp_path: Path) -> None:
    """A missing file, one without certificates, a folder without hashes."""
    empty, unhashed = tmp_path / "empty.pem", tmp_path / "certificates"
    empty.write_text("no certificate")
    unhashed.mkdir()
    (unhashed / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    with pytest.raises(ConfigError, match=r"CURL_CA_BUNDLE: /nonexistent/ca.pem: no such"):
        named_certificates({"SSL_CERT_FILE": str(empty), "CURL_CA_BUNDLE": "/nonexistent/ca.pem"})
    for place, why in ((empty, "no certificate"), (unhashed, "rehash")):
        with pytest.raises(ConfigError, match=rf"REQUESTS_CA_BUNDLE: .*{why}"):
            trusting("REQUESTS_CA_BUNDLE", str(place))


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_sync_names_the_variable_without_certificates(tmp_path: Path, variable: str) -> None:
    """As a configuration error, before any request."""
    folder = Folder(tmp_path)
    folder.configure("https://127.0.0.2:9/2.0", ONCE)
    ran = folder.run("sync", **{variable: "/nonexistent/ca"})
    assert ran.code == 2
    assert f"{variable}: /nonexistent/ca: no such file or folder" in ran.err


def test_a_key_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Not the certificates, which can be read."""
    folder = Folder(tmp_path)
    folder.configure("https://127.0.0.1:9/2.0", ONCE)
    ran = folder.run("sync", SSLKEYLOGFILE="/nonexistent/keys")
    assert ran.code == 2
    assert "SSLKEYLOGFILE: /nonexistent/keys: cannot be written" in ran.err


VERIFY = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "


@pytest.mark.parametrize(
    ("cause", "remedy"),
    [
        (VERIFY + "unable to get local issuer certificate", "name its PEM file in SSL_CERT_FILE"),
        (VERIFY + "certificate has expired", "needs a new certificate"),
        (VERIFY + "certificate is not yet valid", "the clock of this machine"),
        (VERIFY + "Hostname mismatch, certificate is not valid for 'git.example'.", "the certificate names"),
        (VERIFY + "IP address mismatch, certificate is not valid for '127.0.0.1'.", "the certificate names"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "speaks no TLS"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert", "certificates of clients"),
        ("[Errno 111] Connection refused", ""),
    ],
)
def test_each_error_of_tls_has_its_own_remedy(cause: str, remedy: str) -> None:
    """Trusting another authority would help only against the first."""
    told = tls_remedy(cause, {})
    assert remedy in told
    assert bool(remedy) == bool(told)
    assert ("SSL_CERT_FILE" in told) == ("issuer" in cause)


def test_a_plain_request_is_the_one_that_httpx_would_send() -> None:
    """Whatever the address: either it is sent as httpx builds it, or httpx builds it."""
    origins = [("http", "127.0.0.1", 8080), ("https", "api.bitbucket.org", None), ("http", "::1", 81)]
    connections = Connections(origins, timeout=30, user_agent="mirror", deadline=Deadline(lambda: 0.0))
    begins = ["http://127.0.0.1:8080", "https://api.bitbucket.org", "http://[::1]:81", "https://u@a", "http:"]
    letters = "ab./?&=%7BD{}~!$()*+,;:@-_'\"<> #\\|^`\u00e9[]\n"
    chosen, headers = Random(8), {"Authorization": "Bearer x"}
    plain = 0
    for _ in range(4000):
        url = f"{chosen.choice(begins)}/{''.join(chosen.choices(letters, k=chosen.randrange(10)))}"
        quick = connections.plain_request(url, headers)
        if quick is not None:
            usual = connections.request("GET", url, headers, None)
            assert quick.headers == usual.headers.raw
            address = (usual.url.raw_scheme, usual.url.raw_host, usual.url.port, usual.url.raw_path)
            assert (quick.url.scheme, quick.url.host, quick.url.port, quick.url.target) == address
            plain += 1
    assert plain > 400
    assert connections.plain_request(f"http://127.0.0.1:8080/{'a' * 70_000}", headers) is None
