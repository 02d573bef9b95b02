"""HTTP requests to an upstream: counted by the budget, limited in size and time, and retried.

The budget counts every request before it is sent, retries too. A call returns a Response of success, or
raises one of the errors of `mirror.errors`.
"""

import os
import random as random_numbers
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx
import msgspec

from mirror import __version__
from mirror.config import Retry
from mirror.credentials import AccessTokens, Credential, Grant, token_address
from mirror.errors import (
    ConfigError,
    CredentialsRefused,
    MirrorError,
    ProxyRefused,
    UpstreamBusy,
    UpstreamError,
    UpstreamRefused,
    UpstreamShapeError,
)
from mirror.times import Clock
from mirror.upstream.budget import Budget, RequestKind, retry_delay
from mirror.upstream.deadline import Deadline
from mirror.upstream.environment import tls_remedy
from mirror.upstream.response import (
    PROXY_LOGIN,
    NotSent,
    Response,
    RetryPolicy,
    UnexpectedBody,
    decoded,
    error_for,
    moment_of,
    shown,
    shown_url,
    unexpected_body,
)
from mirror.upstream.transport import (
    NETWORK_ERRORS,
    NEVER_SENT,
    PROXY_ERRORS,
    TIMEOUTS,
    Connections,
    Request,
    TooLarge,
    Transport,
    origin_of,
    read_body,
)

if TYPE_CHECKING:
    from mirror.upstream.git import GitRefs

Shape = TypeVar("Shape")
Method = Literal["GET", "POST", "PUT", "DELETE"]

# Bytes that a body may have: a page of 100 rows takes a few hundred thousand, refs by git 60 for each.
LARGEST: dict[RequestKind, int] = {"api": 16 * 1024 * 1024, "git": 64 * 1024 * 1024}

MOST_REDIRECTS = 3  # in a row, for one request
USER_AGENT = f"bitbucket-mirror/{__version__}"

# Such parts of a path are resolved on the way, so a name like that would lead to another object.
_DOTS = re.compile(r"/\.{1,2}(/|$)")


class _Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request, to be sent once or several times.

    An answer of another type than `content_type` is not accepted, "" accepts any. `anonymously` sends no
    credential.
    """

    method: Method
    url: str
    kind: RequestKind = "api"
    headers: Mapping[str, str] = {}
    content: bytes | None = None
    content_type: str = ""
    anonymously: bool = False


class LargeAnswer(UpstreamShapeError):
    """The body is larger than may be read; fewer rows may be requested."""


class Http:
    """The connections to one upstream, for any number of threads.

    :param url: the base address; targets are below it.
    :param retry: how many attempts a request gets, and the delays between them.
    :param timeout: seconds for one step of an exchange; a whole exchange may take ten times as long.
    :param origins: further addresses that the credential may be sent to, as ``https://host``.
    :param token_user: OAuth tokens are sent as the password of this user, as git wants them; "" sends them
        by the Bearer scheme.
    :param transport: replaces the network, in tests.
    :param timer: measures the time limits, in seconds.

    Raises ConfigError for an address, a proxy or certificates that cannot be used.
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
        self._deadline = Deadline(timer)
        try:
            self._origins = {origin_of(httpx.URL(address)) for address in (self.url, *origins)}
        except httpx.InvalidURL as error:
            raise ConfigError(f"url {url!r} is not a web address: {error}") from None
        self._origins |= {("https", host, None) for scheme, host, port in self._origins if port is None}
        if credential.form == "oauth":
            self._origins.add(origin_of(httpx.URL(token_address(self.url))))
        self._connections = Connections(
            self._origins,
            timeout=timeout,
            user_agent=user_agent,
            transport=transport,
            deadline=self._deadline,
        )
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
        """Request a path below the base address, or an absolute address of a trusted origin.

        A success of another type than `content_type` is retried, then raises UpstreamShapeError.
        """
        return self.send("GET", target, headers=headers, kind=kind, content_type=content_type, repeat=True)

    def get_json(
        self,
        target: str,
        shape: type[Shape],
        *,
        attempts: int | None = None,
        anonymously: bool = False,
    ) -> tuple[Shape, Response]:
        """Request JSON and decode it as `shape`.

        `attempts` is the most, if fewer than configured; `anonymously` sends no credential. A success whose
        body is not JSON is retried like a failure: a proxy in between has answered.
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
        """Send a request.

        It is retried only if it was certainly not done; `repeat` retries it like a read.
        """
        call = _Call(
            method=method,
            url=self.address(target),
            kind=kind,
            headers=headers or {},
            content=content,
            content_type=content_type,
        )
        retrying = self._policy.reads if repeat else self._policy.writes
        try:
            return retrying(self._ask, call)
        except UnexpectedBody as error:
            raise UpstreamShapeError(str(error)) from None

    def post(self, target: str, body: Any) -> Response:
        """Create something from a JSON body; retried only if it was certainly not done."""
        return self.send("POST", target, content=msgspec.json.encode(body), headers=_JSON_BODY)

    def put(self, target: str, body: Any) -> Response:
        """Change something by a JSON body, retried as `post` is."""
        return self.send("PUT", target, content=msgspec.json.encode(body), headers=_JSON_BODY)

    def delete(self, target: str) -> None:
        """Delete something; retried as `post` is. Raises UpstreamShapeError for a web page, as of a proxy."""
        answer = self.send("DELETE", target)
        if answer.body:
            self.decoded(answer, msgspec.Raw)

    def address(self, target: str) -> str:
        """Return the absolute address of a target; an absolute one stays as it is."""
        if target.startswith(("http://", "https://")):
            return target
        return f"{self.url}/{target.removeprefix('/')}"

    def redacted(self, text: str) -> str:
        """Remove our secrets from a text that the upstream sent."""
        text = self.credential.redacted(text)
        return self._with_token(self._tokens.token).redacted(text) if self._tokens else text

    def decoded(self, answer: Response, shape: type[Shape]) -> Shape:
        """Decode the body of an answer; raises UpstreamShapeError."""
        try:
            return decoded(answer, shape, self.redacted)
        except UnexpectedBody as error:
            raise UpstreamShapeError(str(error)) from None

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def _ask_json(self, call: _Call, shape: type[Shape]) -> tuple[Shape, Response]:
        answer = self._ask(call)
        return decoded(answer, shape, self.redacted), answer

    def _ask(self, call: _Call) -> Response:
        """Send a request once; return a success, raise anything else."""
        credential = Credential() if call.anonymously else self.credential
        if self._tokens is None or call.anonymously:
            answer = self._answer(call, credential.authorization)
        else:
            token = self._tokens.get()
            answer = self._answer(call, self._with_token(token).authorization)
            if answer.status == 401:
                # The only retry of a 401: a token may expire early.
                self._tokens.drop(token)
                answer = self._answer(call, self._with_token(self._tokens.get()).authorization)
        if 200 <= answer.status < 300:
            if call.content_type and not answer.headers.get("content-type", "").startswith(call.content_type):
                raise unexpected_body(answer, self.redacted, f"no {call.content_type}")
            return answer
        delay = retry_delay(answer.headers, self.clock())
        raise error_for(answer, credential, self.redacted, retry_after=delay)

    def _answer(self, call: _Call, authorization: str | None) -> Response:
        """Send a request, and follow redirects within the origin."""
        for _ in range(MOST_REDIRECTS + 1):
            answer = self._exchange(call, authorization)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            call = self._redirected(call, answer)
        raise UpstreamRefused(f"{answer.url}: {answer.status}: too many redirects", status=answer.status)

    def _redirected(self, call: _Call, answer: Response) -> _Call:
        """Return the call to the target of a redirect; raises UpstreamRefused for another origin."""
        location = answer.headers.get("location", "")
        target = _target(call.url, location)
        redacted = self.redacted(location)
        if redacted != location:  # addresses are shown and stored, so they must hold no secret
            target = None
        if call.method != "GET" or target is None:
            where = shown_url(redacted) or "no address"
            raise UpstreamRefused(
                f"{answer.url}: {answer.status}: redirected to {where}, which is not followed:"
                " credentials go to the configured address only; if the server has moved, set `url`",
                status=answer.status,
            )
        return msgspec.structs.replace(call, url=target)

    def _exchange(self, call: _Call, authorization: str | None) -> Response:
        """Send one request and read its answer; raises UpstreamBusy if there is none."""
        request = self._request(call, authorization)
        reservation = self._budget.take(call.kind)
        self._deadline.at = self._timer() + self._longest
        try:
            incoming = self._connections.send(request)
            try:
                headers = _named(incoming.headers)
                encoding = headers.get("content-encoding", "").strip().lower()
                body = read_body(incoming, encoding, most=LARGEST[call.kind], deadline=self._deadline)
            finally:
                incoming.close()
        except TooLarge:
            raise LargeAnswer(
                f"{shown_url(call.url)}: the body is larger than {LARGEST[call.kind]:,} bytes"
            ) from None
        except NETWORK_ERRORS as error:
            problem = self._problem(error, call.url)
            if isinstance(error, NEVER_SENT):  # the upstream did not count it either
                self._budget.take_back(call.kind, reservation)
            raise problem from None
        finally:
            self._deadline.at = None
        date = moment_of(headers.get("date", "")) or self.clock()
        answer = Response(status=incoming.status, headers=headers, body=body, date=date, address=call.url)
        self._budget.observe(call.kind, answer.status, answer.headers)
        return answer

    def _request(self, call: _Call, authorization: str | None) -> Request:
        """Build a request.

        Raises UpstreamShapeError for an address that is invalid, of another origin, or leads to another path.
        """
        headers = {**call.headers, "Authorization": authorization} if authorization else call.headers
        try:
            if call.method == "GET" and call.content is None:  # nearly all: this takes a tenth of the time
                plain = self._connections.plain_request(call.url, headers)
                if plain is not None:
                    return plain
            request = self._connections.request(call.method, call.url, headers, call.content)
        except (httpx.InvalidURL, ValueError):
            raise UpstreamShapeError(f"{shown(call.url)!r} is not an address") from None
        is_elsewhere = origin_of(request.url) not in self._origins or _DOTS.search(urlsplit(call.url).path)
        if request.url.userinfo or is_elsewhere:
            raise UpstreamShapeError(
                f"{shown_url(call.url)} is not an address of {shown_url(self.url)}: nothing is sent there"
            )
        return request

    def _problem(self, error: Exception, url: str) -> MirrorError:
        """Return our error for one of httpx's: NotSent if the request was never sent."""
        cause = shown(self.redacted(str(error))) or type(error).__name__
        where = shown_url(url)
        cause += tls_remedy(cause, os.environ)
        proxy = self._connections.proxy_for(url)
        through = f" through the proxy {proxy}" if proxy else ""
        if isinstance(error, NEVER_SENT):
            line = f"{where}: cannot connect{through}: {cause}"
            if isinstance(error, PROXY_ERRORS) and cause.startswith("407"):
                return ProxyRefused(f"{line}{PROXY_LOGIN}")
            return NotSent(line)
        if isinstance(error, TIMEOUTS):
            return UpstreamBusy(f"{where}: no answer in time{through}: {cause}")
        return UpstreamBusy(f"{where}: the connection broke{through}: {cause}")

    def _with_token(self, token: str) -> Credential:
        return Credential("basic" if self._token_user else "bearer", self._token_user, token)

    def _grant(self) -> Grant:
        """Request an access token as the OAuth consumer.

        Raises CredentialsRefused, UpstreamBusy for 429, UpstreamError if there is no usable answer.
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
            return self._policy.reads(ask)
        except (UpstreamRefused, UpstreamShapeError, UnexpectedBody) as error:
            # It must not be taken for a refusal of the request that needs the token.
            raise CredentialsRefused(f"no access token is given for the OAuth consumer: {error}") from None
        except UpstreamBusy as error:
            if error.status == 429:  # it holds the account; waiting helps
                raise
            raise UpstreamError(f"requesting an access token failed: {error}") from None


class HttpUpstream:
    """The common part of the upstreams: a client of the API, and perhaps one of git for the refs."""

    def __init__(self, name: str, http: Http, git: "GitRefs | None" = None) -> None:
        self.name = name
        self.anonymous = http.credential.form == "anonymous"
        self._http = http
        self._git = git

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        if self._git:
            self._git.close()


_JSON_BODY = {"Content-Type": "application/json"}


def _named(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by their names in lower case."""
    # The look-ups of httpx take longer than the rest of a request.
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


def _target(url: str, location: str) -> str | None:
    """Return the target of a redirect; None if it is another host or port, or less safe.

    From http to https at their usual ports is safe; an address with a login in it is not.
    """
    try:
        target = urljoin(url, location)
        here, there = urlsplit(url), urlsplit(target)
        ports = (here.port, there.port)
    except ValueError:
        return None
    is_upgrade = (here.scheme, there.scheme) == ("http", "https") and ports == (None, None)
    same = here.hostname == there.hostname and (
        is_upgrade or (here.scheme, here.port) == (there.scheme, there.port)
    )
    return target if same and "@" not in there.netloc and location else None
