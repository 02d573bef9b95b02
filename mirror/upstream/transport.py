"""The connections beneath the client: proxies, certificates, a deadline for a whole exchange, unpacking."""

import os
import ssl
import threading
import zlib
from collections.abc import Callable, Collection, Iterable
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.request import getproxies

import httpcore
import httpx

from mirror.errors import ConfigError
from mirror.upstream.environment import named_certificates, proxy_of, trusting
from mirror.upstream.response import shown

Transport = httpx.BaseTransport
"""What tests hand in instead of a network."""

Origin = tuple[str, str, int | None]
"""Scheme, host and port of an address; the port is None where it is the scheme's own."""

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def origin_of(url: httpx.URL) -> Origin:
    """Return the origin of an address."""
    return url.scheme, url.host, url.port


def open_client(
    origins: Collection[Origin],
    *,
    timeout: float,
    concurrency: int,
    user_agent: str,
    deadline: "Deadline",
    transport: Transport | None = None,
) -> httpx.Client:
    """Make an HTTP client for some origins; `transport` replaces its network.

    `timeout` is in seconds, for one step of an exchange; `deadline` limits the whole exchange. Cookies are
    not kept, redirects not followed. Raises ConfigError for a proxy or certificates that cannot be used.
    """
    limits = httpx.Limits(max_connections=concurrency + 1, max_keepalive_connections=concurrency + 1)
    client = httpx.Client(
        transport=transport,
        mounts=None if transport else _proxies(origins, limits),
        verify=_certificates_for(origins),
        timeout=timeout,
        limits=limits,
        headers={
            "User-Agent": user_agent,
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
        },
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        trust_env=False,  # `environment` reads what the environment says
        follow_redirects=False,
    )
    if transport is None:
        # httpx offers no public way to the network beneath it.
        for each in (client._transport, *client._mounts.values()):  # noqa: SLF001
            if isinstance(each, httpx.HTTPTransport):
                each._pool._network_backend = DeadlineBackend(deadline)  # noqa: SLF001
    return client


def _proxies(origins: Iterable[Origin], limits: httpx.Limits) -> dict[str, httpx.HTTPTransport]:
    """Return a transport for each origin that is reached through a proxy; raises ConfigError."""
    found = dict[str, httpx.HTTPTransport]()
    for scheme, host, port in origins:
        proxy = None if host in LOOPBACK else proxy_of(scheme, host, port, getproxies())
        if proxy is not None:
            name = f"[{host}]" if ":" in host else host
            try:
                found[f"{scheme}://{name}"] = httpx.HTTPTransport(
                    verify=_certificates_for(origins), proxy=proxy, limits=limits, trust_env=False
                )
            except httpx.InvalidURL:
                raise ConfigError(f"the proxy for {scheme} in the environment is not an address") from None
    return found


def _certificates_for(origins: Iterable[Origin]) -> ssl.SSLContext:
    """Return which certificates are trusted; the environment counts only where something is encrypted."""
    is_encrypted = any(scheme == "https" for scheme, _, _ in origins)
    return _certificates(named_certificates(os.environ) if is_encrypted else None)


@cache
def _certificates(named: tuple[str, str] | None) -> ssl.SSLContext:
    """Read the trusted certificates, once: it takes 24 ms, and fragments memory if each run does it.

    `named` is the variable that names certificates, and its value; raises ConfigError as `trusting` does.
    """
    try:
        return trusting(*named) if named else httpx.create_ssl_context(trust_env=False)
    except OSError as error:
        raise ConfigError(f"the certificates to trust cannot be read: {error}") from None


class Deadline(threading.local):
    """When the exchange of this thread must be over, by `timer`; None is never."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self.at: float | None = None
        self._timer = timer

    def left(self, timeout: float | None) -> float | None:
        """Return the time-out of one step, in seconds; raises httpcore.ReadTimeout after the deadline."""
        if self.at is None:
            return timeout
        left = self.at - self._timer()
        if left <= 0:
            raise httpcore.ReadTimeout("the whole answer takes too long")
        return left if timeout is None else min(timeout, left)


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens connections whose reads and writes keep the deadline of the thread that uses them.

    The time-outs of the HTTP library bound single reads alone: a server that sends a byte every few seconds
    would hold a client forever.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._plain = httpcore.SyncBackend()
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect as the HTTP library does, and wrap what it gets."""
        left = self._deadline.left(timeout)
        stream = self._plain.connect_tcp(host, port, left, local_address, socket_options)
        return _Stream(stream, self._deadline)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        """Connect to a local socket, and wrap what it gets."""
        left = self._deadline.left(timeout)
        return _Stream(self._plain.connect_unix_socket(path, left, socket_options), self._deadline)


class _Stream(httpcore.NetworkStream):
    """One connection."""

    def __init__(self, plain: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._plain = plain
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._plain.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._plain.write(buffer, self._deadline.left(timeout))

    def close(self) -> None:
        self._plain.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(timeout)
        return _Stream(self._plain.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._plain.get_extra_info(info)


ENCODINGS = {"", "identity", "gzip", "x-gzip", "deflate"}
"""The content encodings of an answer that are read: none, and those that were asked for."""

_GZIP_OR_ZLIB = 47
_BARE = -15


def read_body(response: httpx.Response, encoding: str, *, most: int, deadline: Deadline) -> bytes:
    """Read a body in a content encoding, and unpack at most `most` bytes of it.

    Raises TooLarge for a larger one, httpx.DecodingError for an encoding that was not asked for or is broken,
    httpx.ReadTimeout after the deadline.
    """
    if encoding not in ENCODINGS:
        raise httpx.DecodingError(f"content-encoding {shown(encoding, 40)!r} was not asked for")
    is_read = response.is_stream_consumed  # and unpacked, by a transport that is not a network
    unpacking = Unpacking("" if is_read else encoding, most)
    try:
        for raw in [response.content] if is_read else response.iter_raw():
            unpacking.feed(raw)
            deadline.left(None)
    except httpcore.ReadTimeout as error:
        raise httpx.ReadTimeout(str(error)) from None
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
        self._room = room
        self._pieces = list[bytes]()

    def feed(self, raw: bytes) -> None:
        """Take the next piece; raises TooLarge, and zlib.error for what is not packed so."""
        piece = self._unpacked(raw) if self._is_packed else raw
        self._room -= len(piece)
        if self._room < 0:
            raise TooLarge
        self._pieces.append(piece)

    def body(self) -> bytes:
        """Return all that was fed."""
        return b"".join(self._pieces)

    def _unpacked(self, raw: bytes) -> bytes:
        try:
            return self._unpacker.decompress(raw, self._room + 1)
        except zlib.error:
            # Some servers send "deflate" without zlib's header (RFC 9110, section 8.4.1.2).
            if self._window == _BARE or self._pieces:
                raise
            self._window = _BARE
            self._unpacker = zlib.decompressobj(_BARE)
            return self._unpacker.decompress(raw, self._room + 1)
