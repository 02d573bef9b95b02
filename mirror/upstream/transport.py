"""The connections beneath the client: how a request is sent within its deadline, and a body read."""

import os
import re
import ssl
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple, cast
from urllib.request import getproxies

import httpcore
import httpx

from mirror.errors import ConfigError
from mirror.upstream.deadline import Deadline, DeadlineBackend
from mirror.upstream.environment import named_certificates, proxy_of, proxy_variable, trusting, unreadable
from mirror.upstream.kept_connections import KeptConnections
from mirror.upstream.response import shown

Transport = httpx.BaseTransport  # what tests pass in instead of a network

# Scheme, host and port of an address; the port is None if it is the default of the scheme.
Origin = tuple[str, str, int | None]

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
# The content encodings of an answer that are read: none, and those that were requested.
ENCODINGS = {"", "identity", "gzip", "x-gzip", "deflate"}

_GZIP_OR_ZLIB = 47  # window bits: zlib recognises either header
_BARE = -15  # window bits: deflate without a header, as some servers send it


def origin_of(url: httpx.URL) -> Origin:
    """Return the origin of an address."""
    return url.scheme, url.host, url.port


NETWORK_ERRORS = (
    httpx.HTTPError,
    httpx.StreamError,
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    UnicodeError,  # the resolver's, for a host name with empty or too long parts
)
"""What a failed exchange raises: httpcore's errors, or httpx's where a transport is handed in."""
PROXY_ERRORS = (httpx.ProxyError, httpcore.ProxyError)
TIMEOUTS = (httpx.TimeoutException, httpcore.TimeoutException)
NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpcore.ConnectError,
    httpcore.ConnectTimeout,
    httpcore.ProxyError,  # it opened no connection to the upstream
    UnicodeError,
)
"""The errors after which the request certainly did not leave this machine."""

Request = httpx.Request | httpcore.Request

# httpx would send these as they are; it removes parts of dots, escapes the rest, and refuses longer ones.
LONGEST_PLAIN = 65_000
_PLAIN_TARGET = re.compile(r"/(?:[\w~!$&()*+,;=:@?/-]|%[0-9A-Fa-f]{2}|(?<!/)\.)*", re.ASCII)


class Incoming(NamedTuple):
    """An answer whose body is to be read, and which is then to be closed.

    `is_unpacked` says that the pieces are, by a transport that is not a network.
    """

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    pieces: Iterable[bytes]
    close: Callable[[], None]
    is_unpacked: bool = False


class Connections:
    """The connections to some origins.

    httpx opens them, with its proxies and certificates. Its client is not used: its cookies, hooks, redirects
    and logins are not wanted here, and took a third of the CPU of a request. Nor are its requests, where an
    address is plain: to take it apart costs a fifth of an exchange.

    :param timeout: seconds for one step of an exchange; `deadline` limits the whole exchange.
    :param transport: replaces the network, in tests.

    Raises ConfigError for a proxy or certificates that cannot be used.
    """

    def __init__(
        self,
        origins: Collection[Origin],
        *,
        timeout: float,
        user_agent: str,
        deadline: Deadline,
        transport: Transport | None = None,
    ) -> None:
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "Connection": "keep-alive",
            "User-Agent": user_agent,
        }
        self._timeout = {"timeout": httpx.Timeout(timeout).as_dict()}
        self._is_closed = False
        self._handed_in = transport
        self._starts = dict[str, httpx.Request]()
        """By the beginning of an address: a request there, whose origin and headers others have too."""
        self._direct: KeptConnections | None = None
        self._through = dict[tuple[bytes, bytes], KeptConnections]()
        """The connections to origins that are reached through a proxy, by scheme and host."""
        self._proxies = dict[tuple[str, str], str]()
        """The host and port of such a proxy, and the variable that names it, for errors."""
        if transport is not None:
            return
        self._direct = _kept_connections(_certificates_for(scheme for scheme, *_ in origins), deadline)
        for scheme, host, port in origins:
            begin = httpx.URL(scheme=scheme, host=host, port=port, path="/")
            root = self.request("GET", str(begin), {}, None)
            self._starts[str(root.url)] = root
            proxy = None if host in LOOPBACK else proxy_of(scheme, host, port, getproxies())
            if proxy is not None:
                variable = proxy_variable(scheme, getproxies())
                address = _proxy_address(proxy, variable)
                certificates = _certificates_for((scheme, address.scheme))
                through = _kept_connections(certificates, deadline, proxy=address)
                self._through[begin.raw_scheme, begin.raw_host] = through
                self._proxies[scheme, host] = f"{address.netloc.decode()} ({variable})"

    def plain_request(self, url: str, headers: Mapping[str, str]) -> httpcore.Request | None:
        """Build a GET of a plain address of one of the origins; None for any other. Raises ValueError."""
        end = url.find("/", len("https://"))
        root = self._starts.get(url[: end + 1])
        if root is None or len(url) > LONGEST_PLAIN or not _PLAIN_TARGET.fullmatch(url, end):
            return None
        address = httpcore.URL(
            scheme=root.url.raw_scheme, host=root.url.raw_host, port=root.url.port, target=url[end:].encode()
        )
        added = [(name.encode(), value.encode("ascii")) for name, value in headers.items()]
        return httpcore.Request(
            b"GET", address, headers=[*root.headers.raw, *added], extensions=self._timeout
        )

    def request(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None
    ) -> httpx.Request:
        """Build any request; raises httpx.InvalidURL and ValueError."""
        return httpx.Request(
            method, url, headers={**self._headers, **headers}, content=content, extensions=self._timeout
        )

    def proxy_for(self, url: str) -> str:
        """Return the host and port of the proxy to an address, and its variable; "" without one."""
        address = httpx.URL(url)
        return self._proxies.get((address.scheme, address.host), "")

    def send(self, request: Request) -> Incoming:
        """Send a request; the body of the answer is to be read, and then closed. Raises NETWORK_ERRORS.

        Raises RuntimeError once all are closed: a thread that outlives its run opens no new connection.
        """
        if self._is_closed:
            raise RuntimeError("the connections are closed")
        if self._handed_in is not None:
            assert isinstance(request, httpx.Request)  # noqa: S101 - there are no origins for plain ones
            return _handed_over(self._handed_in.handle_request(request))
        if isinstance(request, httpx.Request):
            request = _for_the_network(request)
        assert self._direct is not None  # noqa: S101 - nothing is handed in
        kept = self._through.get((request.url.scheme, request.url.host), self._direct)
        answer, end = kept.send(request)
        return Incoming(answer.status, answer.headers, cast("Iterable[bytes]", answer.stream), end)

    def close(self) -> None:
        """Close all of them."""
        self._is_closed = True
        for each in (self._handed_in, self._direct, *self._through.values()):
            if each is not None:
                each.close()


def _kept_connections(
    certificates: ssl.SSLContext, deadline: Deadline, *, proxy: httpx.URL | None = None
) -> KeptConnections:
    """Make connections, through a proxy or not. httpx itself must not read the environment."""
    trusted = certificates if proxy is not None and proxy.scheme == "https" else None
    through = None if proxy is None else httpx.Proxy(proxy, ssl_context=trusted)
    made = httpx.HTTPTransport(verify=certificates, proxy=through, trust_env=False)
    # httpx offers no public way to the network beneath it.
    pool = made._pool  # noqa: SLF001
    pool._network_backend = DeadlineBackend(deadline)  # noqa: SLF001
    return KeptConnections(pool.create_connection)


def _handed_over(answer: httpx.Response) -> Incoming:
    """Return the answer of a transport that was handed in."""
    is_read = answer.is_stream_consumed
    pieces = [answer.content] if is_read else answer.iter_raw()
    return Incoming(answer.status_code, answer.headers.raw, pieces, answer.close, is_unpacked=is_read)


def _for_the_network(request: httpx.Request) -> httpcore.Request:
    """Return a request as httpx's own transport sends it."""
    url = request.url
    return httpcore.Request(
        request.method,
        httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=request.read(),
        extensions=request.extensions,
    )


def _proxy_address(proxy: str, variable: str) -> httpx.URL:
    """Return the address of a proxy; raises ConfigError without showing it, as it may have a password."""
    try:
        return httpx.URL(proxy)
    except httpx.InvalidURL:
        raise ConfigError(f"{variable}: what the environment holds is not an address") from None


def _certificates_for(schemes: Iterable[str]) -> ssl.SSLContext:
    """Return the trusted certificates; if nothing is encrypted, none are read."""
    if all(scheme == "http" for scheme in schemes):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _certificates(named_certificates(os.environ))


@cache
def _certificates(named: tuple[str, str] | None) -> ssl.SSLContext:
    """Read the trusted certificates, once: it takes 24 ms, and fragments memory if each run does it.

    `named` is the variable that names certificates, and its value; raises ConfigError as `trusting` does.
    """
    try:
        return trusting(*named) if named else httpx.create_ssl_context(trust_env=False)
    except OSError as error:
        raise unreadable("the certificates to trust", error) from None


def read_body(answer: Incoming, encoding: str, *, most: int, deadline: Deadline) -> bytes:
    """Read a body in a content encoding, and unpack at most `most` bytes of it.

    Raises TooLarge for a larger one, httpx.DecodingError for an encoding that was not requested or is broken,
    NETWORK_ERRORS also after the deadline.
    """
    if encoding not in ENCODINGS:
        raise httpx.DecodingError(f"content-encoding {shown(encoding, 40)!r} was not asked for")
    unpacking = Unpacking("" if answer.is_unpacked else encoding, most)
    try:
        for raw in answer.pieces:
            unpacking.feed(raw)
            deadline.left(None)
    except zlib.error as error:
        raise httpx.DecodingError(str(error)) from None
    return unpacking.body()


class TooLarge(Exception):
    """The body is larger than may be read; the rest of it is not unpacked."""


class Unpacking:
    """Unpacks one body of at most `room` bytes, piece by piece."""

    def __init__(self, encoding: str, room: int) -> None:
        """Take an encoding of ENCODINGS."""
        self._is_packed = encoding not in {"", "identity"}
        self._window = _GZIP_OR_ZLIB
        self._unpacker = zlib.decompressobj(self._window)
        self._is_first = True
        self._room = room
        self._pieces = list[bytes]()

    def feed(self, raw: bytes) -> None:
        """Unpack the next piece; raises TooLarge, and zlib.error if it is not in this encoding."""
        while raw:
            piece, raw = self._unpacked(raw) if self._is_packed else (raw, b"")
            self._room -= len(piece)
            if self._room < 0:
                raise TooLarge
            self._pieces.append(piece)

    def body(self) -> bytes:
        """Return the unpacked body."""
        return b"".join(self._pieces)

    def _unpacked(self, raw: bytes) -> tuple[bytes, bytes]:
        """Unpack up to the end of a member; return also what follows it."""
        if self._unpacker.eof:  # gzip may have several, one after the other (RFC 1952, section 2.2)
            self._unpacker, self._is_first = zlib.decompressobj(self._window), False
        try:
            piece = self._unpacker.decompress(raw, self._room + 1)
        except zlib.error:
            if not self._is_first:  # padding, which every reader of gzip ignores
                return b"", b""
            # Some servers send "deflate" without zlib's header (RFC 9110, section 8.4.1.2).
            if self._window == _BARE or self._pieces:
                raise
            self._window = _BARE
            self._unpacker = zlib.decompressobj(_BARE)
            piece = self._unpacker.decompress(raw, self._room + 1)
        return piece, self._unpacker.unused_data
