"""Requests over HTTP: bounded, counted, repeated where `patience` says so.

No other file imports httpx.

Every request is counted by the budget before it is sent, repeats too. What comes back is an Response of
success, or one of the errors of `mirror.errors`.
"""

import os
import random as random_numbers
import ssl
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Literal, TypeVar
from urllib.request import getproxies

import httpx
import msgspec

from mirror import __version__
from mirror.config import Retry
from mirror.credentials import Credential
from mirror.errors import (
    ConfigError,
    CredentialsRefused,
    UpstreamBusy,
    UpstreamError,
    UpstreamRefused,
    UpstreamShapeError,
)
from mirror.times import Clock
from mirror.upstream.budget import Budget, RequestKind, retry_delay
from mirror.upstream.environment import distrust_remedy, named_certificates, proxy_of, trusting
from mirror.upstream.oauth import AccessTokens, Grant, token_address
from mirror.upstream.response import (
    Response,
    UnexpectedBody,
    decoded,
    error_for,
    moment_of,
    shown,
    shown_url,
    unexpected_body,
)
from mirror.upstream.retry import NotSent, Retrying, RetryPolicy
from mirror.upstream.transport import ENCODINGS, Deadline, DeadlineBackend, TooLarge, Unpacking
from mirror.upstream.urls import redirected

Shape = TypeVar("Shape")
Method = Literal["GET", "POST", "PUT", "DELETE"]

Transport = httpx.BaseTransport
"""What tests hand in instead of a network, so that only this file need know httpx."""

LARGEST: dict[RequestKind, int] = {"api": 16 * 1024 * 1024, "git": 64 * 1024 * 1024}
"""Bytes that a body may have: a page of 100 rows takes a few hundred thousand, refs by git 60 for each."""

MOST_REDIRECTS = 3
USER_AGENT = f"bitbucket-mirror/{__version__}"
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class _Call(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to ask; where a `content_type` is given, an answer of another is not what was asked for.

    `anonymously` sends no credential.
    """

    method: Method
    url: str
    kind: RequestKind = "api"
    headers: Mapping[str, str] = {}
    content: bytes | None = None
    content_type: str = ""
    anonymously: bool = False


class LargeAnswer(UpstreamShapeError):
    """The body is larger than may be read: less of it may be asked for."""


class Http:
    """A connection pool to one upstream, for any number of threads.

    `timeout` is in seconds, for each single step; a whole exchange may take ten times as long. `origins`
    are further addresses that the credential may be sent to, as ``https://host``. With a `token_user`, OAuth
    tokens go as that user's password, as git wants them.
    """

    def __init__(
        self,
        *,
        url: str,
        credential: Credential,
        budget: Budget,
        retry: Retry,
        timeout: float,
        clock: Clock,
        random: random_numbers.Random | None = None,
        concurrency: int = 4,
        origins: Iterable[str] = (),
        user_agent: str = USER_AGENT,
        token_user: str = "",
        transport: Transport | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url.rstrip("/")
        self.credential = credential
        self._budget = budget
        self.clock = clock
        self._timer = timer
        self._token_user = token_user
        self._longest = 10 * timeout
        self._deadline = Deadline()
        try:
            self._origins = {_origin(httpx.URL(address)) for address in (self.url, *origins)}
        except httpx.InvalidURL as error:
            raise ConfigError(f"url {url!r} is no web address: {error}") from None
        self._origins |= {("https", host, None) for scheme, host, port in self._origins if port is None}
        if credential.form == "oauth":
            self._origins.add(_origin(httpx.URL(token_address(self.url))))
        limits = httpx.Limits(max_connections=concurrency + 1, max_keepalive_connections=concurrency + 1)
        self._client = httpx.Client(
            transport=transport,
            mounts=None if transport else self._proxies(limits),
            verify=self._certificates(),
            timeout=timeout,
            limits=limits,
            headers={
                "User-Agent": user_agent,
                "Accept": "application/json",
                "Accept-Encoding": "gzip, deflate",
            },
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            trust_env=False,  # what the environment says is read by `environment`
            follow_redirects=False,
        )
        if transport is None:
            self._bound_exchanges()
        self._policy = RetryPolicy(retry, budget, random or random_numbers.Random())
        self._tokens = AccessTokens(self._grant, clock) if credential.form == "oauth" else None

    def get(
        self,
        target: str,
        *,
        kind: RequestKind = "api",
        headers: Mapping[str, str] | None = None,
        content_type: str = "",
    ) -> Response:
        """Ask for a path below the base address, or an absolute address of a trusted origin.

        A success of another type than `content_type` is repeated, then an UpstreamShapeError.
        """
        return self._send(
            self._policy.reads,
            _Call(
                method="GET",
                url=self.address(target),
                kind=kind,
                headers=headers or {},
                content_type=content_type,
            ),
        )

    def get_json(
        self,
        target: str,
        shape: type[Shape],
        *,
        attempts: int | None = None,
        anonymously: bool = False,
    ) -> tuple[Shape, Response]:
        """Ask for JSON of a shape; `attempts` overrides how often at most, `anonymously` sends no credential.

        A success whose body is no JSON is repeated like a failure, for it comes from something in between.
        """
        call = _Call(method="GET", url=self.address(target), anonymously=anonymously)
        reads = self._policy.reads if attempts is None else self._policy.reads_at_most(attempts)
        try:
            return reads(self._ask_json, call, shape)
        except UnexpectedBody as error:
            raise UpstreamShapeError(str(error)) from None

    def send(
        self,
        method: Method,
        target: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        kind: RequestKind = "api",
        content_type: str = "",
        repeat: bool = False,
    ) -> Response:
        """Send a request with a body. Unless `repeat`, it is asked again only if it was not done for sure."""
        call = _Call(
            method=method,
            url=self.address(target),
            kind=kind,
            headers=headers or {},
            content=content,
            content_type=content_type,
        )
        return self._send(self._policy.reads if repeat else self._policy.writes, call)

    def post(self, target: str, body: Any) -> Response:
        """Create something from a JSON body; never repeated unless it was not done for sure."""
        return self.send("POST", target, content=msgspec.json.encode(body), headers=_JSON_BODY)

    def put(self, target: str, body: Any) -> Response:
        """Change something by a JSON body, under the rule of `post`."""
        return self.send("PUT", target, content=msgspec.json.encode(body), headers=_JSON_BODY)

    def delete(self, target: str) -> Response:
        """Delete something, under the rule of `post`."""
        return self.send("DELETE", target)

    def address(self, target: str) -> str:
        """Return the whole address of a target; an absolute one is kept as it is."""
        if target.startswith(("http://", "https://")):
            return target
        return f"{self.url}/{target.removeprefix('/')}"

    def redacted(self, text: str) -> str:
        """Take our secrets out of a text that others wrote."""
        text = self.credential.redacted(text)
        return self._with_token(self._tokens.token).redacted(text) if self._tokens else text

    def decoded(self, answer: Response, shape: type[Shape]) -> Shape:
        """Read the body of an answer that need not have had one; raises UpstreamShapeError."""
        try:
            return decoded(answer, shape, self.redacted)
        except UnexpectedBody as error:
            raise UpstreamShapeError(str(error)) from None

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _send(self, retrying: Retrying, call: _Call) -> Response:
        try:
            return retrying(self._ask, call)
        except UnexpectedBody as error:
            raise UpstreamShapeError(str(error)) from None

    def _ask_json(self, call: _Call, shape: type[Shape]) -> tuple[Shape, Response]:
        answer = self._ask(call)
        return decoded(answer, shape, self.redacted), answer

    def _ask(self, call: _Call) -> Response:
        """Ask once; a success is returned, anything else raised."""
        credential = Credential() if call.anonymously else self.credential
        if self._tokens is None or call.anonymously:
            answer = self._answer(call, credential.authorization)
        else:
            token = self._tokens.get()
            answer = self._answer(call, self._with_token(token).authorization)
            if answer.status == 401:
                # The one exception to "a 401 is never repeated": a token may end before its time.
                self._tokens.drop(token)
                answer = self._answer(call, self._with_token(self._tokens.get()).authorization)
        if 200 <= answer.status < 300:
            if call.content_type and not answer.headers.get("content-type", "").startswith(call.content_type):
                raise unexpected_body(answer, self.redacted, f"no {call.content_type}")
            return answer
        told = retry_delay(answer.headers, self.clock())
        raise error_for(answer, credential, self.redacted, retry_after=told)

    def _answer(self, call: _Call, authorization: str | None) -> Response:
        """Ask, and follow redirects within the origin."""
        for _ in range(MOST_REDIRECTS + 1):
            answer = self._exchange(call, authorization)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            call = self._redirected(call, answer)
        raise UpstreamRefused(f"{answer.url}: {answer.status}: too many redirects", status=answer.status)

    def _redirected(self, call: _Call, answer: Response) -> _Call:
        """Return the call to the place a redirect names; raises UpstreamRefused where that is elsewhere."""
        location = answer.headers.get("location", "")
        target = redirected(call.url, location)
        said = self.redacted(location)
        if said != location:  # what is asked is shown and stored, so it must hold no secret
            target = None
        if call.method != "GET" or target is None:
            raise UpstreamRefused(
                f"{answer.url}: {answer.status}: redirected to {shown_url(said)}, which is not followed:"
                " credentials go to the configured address only; if the server has moved, set `url`",
                status=answer.status,
            )
        return msgspec.structs.replace(call, url=target)

    def _exchange(self, call: _Call, authorization: str | None) -> Response:
        """Send one request and read its answer; raises UpstreamBusy where there is none."""
        request = self._request(call, authorization)
        reservation = self._budget.take(call.kind)
        self._deadline.at = self._timer() + self._longest
        try:
            response = self._client.send(request, stream=True)
            try:
                headers = _plain(response.headers)
                encoding = headers.get("content-encoding", "").strip().lower()
                body = self._body(response, encoding, call.url, call.kind)
            finally:
                response.close()
        except (httpx.HTTPError, httpx.StreamError, UnicodeError) as error:
            problem = self._problem(error, call.url)
            if isinstance(problem, NotSent):
                self._budget.take_back(call.kind, reservation)
            raise problem from None
        finally:
            self._deadline.at = None
        date = moment_of(headers.get("date", "")) or self.clock()
        answer = Response(
            status=response.status_code, headers=headers, body=body, date=date, address=call.url
        )
        self._budget.observe(call.kind, answer.status, answer.headers)
        return answer

    def _request(self, call: _Call, authorization: str | None) -> httpx.Request:
        """Build a request; raises UpstreamShapeError for an address that is none or is not to be trusted."""
        headers = dict(call.headers)
        if authorization:
            headers["Authorization"] = authorization
        try:
            request = self._client.build_request(call.method, call.url, headers=headers, content=call.content)
        except (httpx.InvalidURL, ValueError):
            raise UpstreamShapeError(f"{shown(call.url)!r} is no address") from None
        if request.url.userinfo or _origin(request.url) not in self._origins:
            raise UpstreamShapeError(
                f"{shown_url(call.url)} is not an address of {shown_url(self.url)}: nothing is sent there"
            )
        return request

    def _body(self, response: httpx.Response, encoding: str, url: str, kind: RequestKind) -> bytes:
        """Read a body of bounded size in bounded time."""
        if encoding not in ENCODINGS:
            raise httpx.DecodingError(f"content-encoding {shown(encoding, 40)!r} was not asked for")
        deadline = self._timer() + self._longest
        most = LARGEST[kind]
        is_read = response.is_stream_consumed  # and unpacked: so a transport answers that is no network
        unpacking = Unpacking("" if is_read else encoding, most)
        try:
            for raw in [response.content] if is_read else response.iter_raw():
                unpacking.feed(raw)
                if self._timer() > deadline:
                    raise httpx.ReadTimeout("the answer takes too long altogether")
        except TooLarge:
            raise LargeAnswer(f"{shown_url(url)}: the body is larger than {most:,} bytes") from None
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from None
        return unpacking.body()

    def _problem(self, error: Exception, url: str) -> UpstreamBusy:
        """Return our error for one of httpx's: NotSent, where the request never left."""
        cause = shown(self.redacted(str(error))) or type(error).__name__
        where = shown_url(url)
        # A UnicodeError is how the resolver takes a host name with too long or empty parts.
        if "CERTIFICATE_VERIFY_FAILED" in cause:
            cause += distrust_remedy(os.environ)
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | UnicodeError):
            return NotSent(f"{where}: cannot connect: {cause}")
        if isinstance(error, httpx.TimeoutException):
            return UpstreamBusy(f"{where}: no answer in time: {cause}")
        return UpstreamBusy(f"{where}: the connection broke: {cause}")

    def _with_token(self, token: str) -> Credential:
        return Credential("basic" if self._token_user else "bearer", self._token_user, token)

    def _grant(self) -> Grant:
        """Ask for an access token as the OAuth consumer; whatever comes instead ends the run.

        Without a token nothing can be asked: a refusal must not be taken for that of the thing asked for.
        Raises CredentialsRefused, or UpstreamError where there was no answer worth the name.
        """
        call = _Call(
            method="POST",
            url=token_address(self.url),
            content=b"grant_type=client_credentials",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )

        def ask() -> Grant:
            answer = self._answer(call, self.credential.basic)
            if answer.status != 200:
                # The endpoint says "invalid client" with a 400.
                status = 401 if answer.status == 400 else answer.status
                answer = msgspec.structs.replace(answer, status=status)
                raise error_for(answer, self.credential, self.redacted)
            return decoded(answer, Grant, self.redacted)

        try:
            # A copy, because this runs within an attempt of the original.
            return self._policy.reads.copy()(ask)
        except (UpstreamRefused, UpstreamShapeError, UnexpectedBody) as error:
            raise CredentialsRefused(f"no access token is given for the OAuth consumer: {error}") from None
        except UpstreamBusy as error:
            if error.status == 429:
                raise
            raise UpstreamError(f"no access token could be asked for: {error}") from None

    def _proxies(self, limits: httpx.Limits) -> dict[str, httpx.HTTPTransport]:
        """Return a transport for each address that is reached through a proxy; raises ConfigError."""
        found = dict[str, httpx.HTTPTransport]()
        for scheme, host, port in self._origins:
            proxy = None if host in LOOPBACK else proxy_of(scheme, host, port, getproxies())
            if proxy is not None:
                place = f"[{host}]" if ":" in host else host
                try:
                    found[f"{scheme}://{place}"] = httpx.HTTPTransport(
                        verify=self._certificates(), proxy=proxy, limits=limits, trust_env=False
                    )
                except httpx.InvalidURL:
                    raise ConfigError(f"the proxy for {scheme} in the environment is no address") from None
        return found

    def _certificates(self) -> ssl.SSLContext:
        """Return who is trusted; the environment is of no account where nothing is encrypted."""
        encrypted = any(scheme == "https" for scheme, _, _ in self._origins)
        return _certificates(named_certificates(os.environ) if encrypted else None)

    def _bound_exchanges(self) -> None:
        """Put the deadline beneath httpx, which offers no public way to it."""
        for transport in (self._client._transport, *self._client._mounts.values()):  # noqa: SLF001
            if isinstance(transport, httpx.HTTPTransport):
                transport._pool._network_backend = DeadlineBackend(self._deadline, self._timer)  # noqa: SLF001


_JSON_BODY = {"Content-Type": "application/json"}


@cache
def _certificates(named: tuple[str, str] | None) -> ssl.SSLContext:
    """Read whom to trust, once: it takes 24 ms, and leaves memory in pieces if each run does it.

    `named` is the variable that names certificates, and its value; raises ConfigError as `trusting` does.
    """
    try:
        return trusting(*named) if named else httpx.create_ssl_context(trust_env=False)
    except OSError as error:
        raise ConfigError(f"the certificates to trust cannot be read: {error}") from None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Return scheme, host and port, the port None where it is the scheme's own."""
    return url.scheme, url.host, url.port


def _plain(headers: httpx.Headers) -> dict[str, str]:
    """Return headers by their names in lower case; httpx's own look-ups cost more than all else here."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers.raw}
