"""The sandbox: routes, counts, limits and answers requests, applies faults, handles control requests."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from threading import RLock
from typing import Any

import msgspec

from mirror.sandbox import api1, api2, datacenter
from mirror.sandbox.api2_query import Style
from mirror.sandbox.datacenter import busy
from mirror.sandbox.edits import perform
from mirror.sandbox.exchange import (
    HourlyQuota,
    HttpError,
    Identity,
    Request,
    SandboxResponse,
    TokenBuckets,
    error,
    json_response,
    no_such_url,
    too_many_requests,
)
from mirror.sandbox.faults import ActiveFault, Fault, afflict, fault_from
from mirror.sandbox.git import Git, is_git
from mirror.sandbox.model import ANONYMOUS, Principal, iso
from mirror.sandbox.world import World

OAUTH_PATH = "/site/oauth2/access_token"


@dataclass(slots=True)
class SandboxOptions:
    """Options for behaviour that was seen to differ between real servers."""

    lenient: bool = False  # on lists of repositories, wrong credentials count as none
    next_prefix: str = "/2.0"  # or "/!api/2.0": the path of links to next pages
    odd_pages: bool = False  # see `api2_query.Style`
    rate_headers: str = "token"  # "token": three headers, for access tokens only; "ietf": 60;w=3600
    tags_touch: bool = True  # a push of tags alone changes updated_on
    token_seconds: int = 3600  # the lifetime of an OAuth token
    bucket_size: int = 0  # Data Center's rate limit: tokens in the bucket of a user; 0 is no limit
    bucket_refill: int = 5  # tokens a second

    def change(self, values: dict[str, Any]) -> None:
        """Set options by name; raises ValueError for an unknown name or a wrong type."""
        known = {each.name for each in fields(self)}
        for name, value in values.items():
            if name not in known or type(value) is not type(getattr(self, name)):
                raise ValueError(f"there is no option {name}={value!r}; there are {asdict(self)}")
        for name, value in values.items():
            setattr(self, name, value)


@dataclass(frozen=True, slots=True)
class Route:
    """How to answer a request: its kind of endpoint, its handler, the quota it counts against."""

    kind: str
    answer: Callable[[Principal], SandboxResponse]
    quota: str = "hour"  # hour | bucket | free
    is_open: bool = False  # credentials, if any, do not identify the caller
    bad_credentials: Callable[[], SandboxResponse] | None = None  # None: the 401 of API 2.0


def route(request: Request, world: World, identity: Identity, options: SandboxOptions) -> Route:
    """Return the route of a request."""
    path = request.path
    if rest := _below(path, api2.PREFIXES):
        style = Style(options.next_prefix, options.odd_pages)
        return Route(api2.kind_of(rest), lambda caller: api2.Api2(world, request, caller, style).answer(rest))
    if rest := _below(path, api1.PREFIXES):
        refused = api1.http_error(401, "Invalid username or password").answer
        return Route(
            api1.kind_of(rest),
            lambda caller: api1.SandboxApi1(world, request, caller).answer(rest),
            bad_credentials=lambda: refused,
        )
    if rest := _below(path, datacenter.PREFIXES):
        return Route(
            datacenter.kind_of(rest),
            lambda caller: datacenter.SandboxDataCenter(world, request, caller).answer(rest),
            quota="bucket",
            bad_credentials=datacenter.bad_credentials,
        )
    if is_git(path):
        return Route("git", lambda caller: Git(world, request, caller).answer(), quota="free")
    if path == OAUTH_PATH:
        seconds = options.token_seconds
        return Route("other", lambda _: identity.grant(request, seconds), quota="free", is_open=True)
    return Route("other", lambda _: no_such_url())


def _below(path: str, prefixes: tuple[str, ...]) -> list[str]:
    for prefix in prefixes:
        if path.startswith(prefix):
            return Request("GET", path[len(prefix) :]).segments
    return []


CONTROL = "/-/sandbox"


class Sandbox:
    """A simulated Bitbucket. Its methods may be called while it is served.

    `requests_per_hour` limits each credential, `anonymous_requests_per_hour` each anonymous client; None
    means no limit. `lively` is called before each request, to change the world.
    """

    def __init__(
        self,
        world: World,
        *,
        requests_per_hour: int | None = None,
        anonymous_requests_per_hour: int | None = None,
        faults: Sequence[Fault] = (),
        options: SandboxOptions | None = None,
        lively: Callable[[], object] = lambda: None,
    ) -> None:
        self.world = world
        self.options = options or SandboxOptions()
        self._lock = RLock()
        self._identity = Identity(world)
        self._budget = HourlyQuota(requests_per_hour, anonymous_requests_per_hour)
        self._buckets = TokenBuckets()
        self._faults = [ActiveFault(fault) for fault in faults]
        self._lively = lively
        self._hooks: dict[int, list[Callable[[], object]]] = {}
        self.reset()

    # Requests

    def answer(self, request: Request) -> SandboxResponse:
        """Answer one request."""
        with self._lock:
            if request.path.rstrip("/").startswith(CONTROL):
                return self._control(request)
            self._run(self._lively)
            self.total += 1
            for hook in self._hooks.pop(self.total, ()):
                self._run(hook)
            found = route(request, self.world, self._identity, self.options)
            self.by_kind[found.kind] += 1
            answer = self._answer(request, found)
            self.by_status[answer.status] += 1
            return answer

    def _answer(self, request: Request, found: Route) -> SandboxResponse:
        def regular() -> SandboxResponse:
            try:
                return self._within_budget(request, found, self._caller(request, found))
            except HttpError as refused:
                return refused.answer
            except Exception as problem:  # noqa: BLE001 - a 500 tells a tester more than a lost connection
                return self._failed(problem)

        active = [each for each in self._faults if each.strikes(found.kind, request)]
        return afflict(active[0].fault, request, regular) if active else regular()

    def _caller(self, request: Request, found: Route) -> Principal:
        if found.is_open:
            return ANONYMOUS
        try:
            lenient = self.options.lenient and found.kind == "listing"
            return self._identity.caller(request, for_git=found.kind == "git", lenient=lenient)
        except HttpError:
            if found.bad_credentials is None:
                raise
            raise HttpError(found.bad_credentials()) from None

    def _within_budget(self, request: Request, found: Route, caller: Principal) -> SandboxResponse:
        anonymous = caller == ANONYMOUS
        key = f"anonymous:{request.client}" if anonymous else caller.key
        self.by_credential[key] += 1
        now = self.world.clock.now()
        if found.quota == "bucket" and (size := self.options.bucket_size):
            seconds = self._buckets.spend(key, now, size=size, refill=self.options.bucket_refill)
            return busy(seconds) if seconds else found.answer(caller)
        if found.quota != "hour":
            return found.answer(caller)
        allowed = self._budget.spend(key, now, anonymous=anonymous)
        try:
            answer = found.answer(caller) if allowed else too_many_requests()
        except HttpError as refused:
            answer = refused.answer
        answer.headers |= self._rate_headers(caller, key, now)
        return answer

    def _rate_headers(self, caller: Principal, key: str, now: int) -> dict[str, str]:
        limit = self._budget.limit(anonymous=caller == ANONYMOUS)
        shown = limit or (60 if caller == ANONYMOUS else 1000)
        spent = self._budget.spent(key, now)
        if self.options.rate_headers == "ietf":
            return {
                "X-RateLimit-Limit": f"{shown}, {shown};w=3600",
                "X-RateLimit-Remaining": str(max(0, shown - spent)),
                "X-RateLimit-Reset": str(self._budget.seconds_left(key, now)),
            }
        if caller.kind != "token":
            return {}
        return {
            "X-RateLimit-Limit": str(shown),
            "X-RateLimit-Resource": "api-repositories",
            "X-RateLimit-NearLimit": "true" if limit and spent * 5 >= limit * 4 else "false",
        }

    def _run(self, hook: Callable[[], object]) -> None:
        try:
            hook()
        except Exception as problem:  # noqa: BLE001 - answer the request all the same
            self._failed(problem)

    def _failed(self, problem: Exception) -> SandboxResponse:
        """Record an error of the sandbox itself, or of a hook, for `state`."""
        self.errors.append(f"{type(problem).__name__}: {problem}")
        return error(500, "The sandbox itself failed", detail=self.errors[-1])

    # Control

    def do(self, action: str, repository: str | None = None, **details: Any) -> dict[str, Any]:
        """Edit the world as POST /-/sandbox does. Example: ``do("push", "owner/slug")``."""
        order = {"action": action, **details}
        if repository is not None:
            order["repository"] = repository
        with self._lock:
            return perform(self.world, order, tags_touch=self.options.tags_touch)

    def state(self) -> dict[str, Any]:
        """Return the counts since the last reset, the options and the faults."""
        with self._lock:
            return {
                "total": self.total,
                "by_kind": dict(self.by_kind),
                "by_status": {str(status): count for status, count in self.by_status.items()},
                "by_credential": dict(self.by_credential),
                "too_many_requests": self.by_status[429],
                "errors": list(self.errors),
                "now": iso(self.world.clock.now()),
                "options": asdict(self.options),
                "faults": [{**asdict(each.fault), "fired": each.fired} for each in self._faults],
            }

    def workspaces(self) -> list[str]:
        """Return the slugs of all workspaces."""
        with self._lock:
            return [workspace.slug for workspace in self.world.workspaces]

    def add_fault(self, fault: Fault) -> None:
        """Add a fault."""
        with self._lock:
            self._faults.append(ActiveFault(fault))

    def clear_faults(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def on_request(self, number: int, hook: Callable[[], object]) -> None:
        """Call `hook` just before the answer to request `number`, counted from 1 since the last reset."""
        with self._lock:
            self._hooks.setdefault(number, []).append(hook)

    def advance(self, seconds: float) -> None:
        """Advance the clock of dates, quotas and tokens."""
        with self._lock:
            self.world.clock.advance(seconds)

    def reset(self) -> None:
        """Reset counters, hooks and quotas; edits, options and faults stay."""
        with self._lock:
            self.total = 0
            self.by_kind: Counter[str] = Counter()
            self.by_status: Counter[int] = Counter()
            self.by_credential: Counter[str] = Counter()
            self.errors: list[str] = []
            self._hooks.clear()
            self._budget.clear()
            self._buckets.clear()

    def _control(self, request: Request) -> SandboxResponse:
        match request.method, request.path.rstrip("/").removeprefix(CONTROL):
            case "GET", "":
                return json_response(self.state())
            case "GET", "/workspaces":
                return json_response(self.workspaces())
            case "POST", "":
                return self._control_action(request)
            case _:
                return no_such_url()

    def _control_action(self, request: Request) -> SandboxResponse:
        try:
            order = msgspec.json.decode(request.body, type=dict[str, Any])
            match order.get("action"):
                case "fault":
                    self.add_fault(fault_from({name: order[name] for name in order if name != "action"}))
                case "clear_faults":
                    self.clear_faults()
                case "reset":
                    self.reset()
                case "advance":
                    self.advance(float(order["seconds"]))
                case "options":
                    self.options.change({name: order[name] for name in order if name != "action"})
                case _:
                    return json_response(perform(self.world, order, tags_touch=self.options.tags_touch))
        except (KeyError, TypeError, ValueError) as bad:
            return error(400, str(bad))
        return json_response(self.state())
