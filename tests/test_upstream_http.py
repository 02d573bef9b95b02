"""Requests are limited, retried if that helps, refused in clear words, and never leak a secret."""

import json
import traceback
from datetime import timedelta

import httpx
import pytest
from upstream_fakes import NOON, FakeUpstream, Responder, answer, faked, page, recorded

from mirror.errors import (
    ConfigError,
    CredentialsRefused,
    MirrorError,
    UpstreamBusy,
    UpstreamError,
    UpstreamRefused,
    UpstreamShapeError,
)
from mirror.model import RepositoryKey
from mirror.upstream.client import Http
from mirror.upstream.cloud import Cloud

OK = page()
TOKEN = "ATCTT3xFfGN0-plant3d"


def http_of(ours: FakeUpstream) -> Http:
    """Return the pool of an upstream."""
    assert isinstance(ours.upstream, Cloud)
    return ours.upstream._http


def ask(ours: FakeUpstream) -> None:
    """Request any listing."""
    ours.upstream.fetch_members("w", None)


@pytest.mark.parametrize("name", ["w/..", "w/.", "../s", "./s"])
@pytest.mark.parametrize("kind", ["cloud", "datacenter", "legacy"])
def test_a_name_that_a_path_resolves_is_not_sent(kind: str, name: str) -> None:
    """The request would reach another object than the one that is named, to delete it for instance."""
    ours = faked(OK, kind=kind, url="https://example.org")
    with pytest.raises(UpstreamShapeError, match="nothing is sent there"):
        ours.upstream.delete_repository(RepositoryKey(uuid="", full_name=name))
    with pytest.raises(UpstreamShapeError, match="nothing is sent there"):
        ours.upstream.find_repository(name)
    assert ours.server.asked == []


BUSY = [
    *(answer("", status) for status in (304, 408, 500, 502, 503, 504, 520)),
    httpx.ConnectError("refused"),
    httpx.ConnectTimeout("no answer"),
    httpx.ReadTimeout("no answer"),
    httpx.PoolTimeout("no room"),
    httpx.ReadError("reset"),
    httpx.WriteError("reset"),
    httpx.RemoteProtocolError("peer closed connection without sending complete message body"),
    httpx.DecodingError("incorrect header check"),
    answer("<html>back soon</html>", content_type="text/html"),
    answer(b'{"values": [', content_type="application/json"),
    answer(b"{}", content_encoding="br"),
    answer(b""),
]


@pytest.mark.parametrize("trouble", BUSY, ids=lambda each: getattr(each, "status_code", type(each).__name__))
def test_transient_failures_are_retried(trouble: httpx.Response | Exception) -> None:
    """After two failures and growing delays, which the user is told of, a success."""
    ours = faked(trouble, trouble, OK)
    ask(ours)
    assert len(ours.server.asked) == 3
    assert 0.5 <= ours.time.naps[0] <= 1 <= ours.time.naps[1] <= 2
    assert ours.time.told[0].endswith("; try 2 of 3")  # whoever tells it adds for how long
    never_left = isinstance(trouble, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    assert (ours.budget.requests, ours.budget.retries) == ((1, 1) if never_left else (3, 2))
    assert ours.ledger.used("anonymous@api.bitbucket.org", ours.time.now) == ours.budget.requests


@pytest.mark.parametrize("trouble", BUSY, ids=lambda each: getattr(each, "status_code", type(each).__name__))
def test_permanent_failures_are_reported(trouble: httpx.Response | Exception) -> None:
    """After the last try, the error's type says whether there was JSON."""
    ours = faked(trouble)
    with pytest.raises(UpstreamError, match=r"api\.bitbucket\.org/2\.0/workspaces/w/members") as caught:
        ask(ours)
    assert len(ours.server.asked) == 3
    no_json = isinstance(trouble, httpx.Response) and trouble.status_code == 200
    decodable = no_json and isinstance(trouble, httpx.Response) and "content-encoding" not in trouble.headers
    assert type(caught.value) is UpstreamShapeError if decodable else isinstance(caught.value, UpstreamBusy)


@pytest.mark.parametrize(
    ("told", "nap"),
    [("7", 7), ("Mon, 23 Nov 2026 12:02:00 GMT", 120), ("99999", 3600), ("0", 1), ("nonsense", 1)],
)
def test_retry_after_is_obeyed_in_both_forms(told: str, nap: int) -> None:
    """Seconds and dates, an hour at most; if invalid, the own delay applies."""
    ours = faked(answer("", 503, retry_after=told), OK)
    ask(ours)
    assert nap / 2 <= ours.time.naps[0] <= nap


def test_a_run_that_may_not_wait_gives_up_at_a_long_delay() -> None:
    """A cron run does not wait for half an hour; delays of its own are cut to half a minute."""
    ours = faked(answer("", 503, retry_after="1800"), OK, may_wait=False)
    with pytest.raises(UpstreamBusy) as caught:
        ask(ours)
    assert (caught.value.retry_after, ours.time.naps) == (1800, [])
    ours = faked(answer("", 503), may_wait=False, attempts=12)
    with pytest.raises(UpstreamBusy):
        ask(ours)
    assert len(ours.time.naps) == 11
    assert 15 <= max(ours.time.naps) <= 30


def test_a_429_without_retry_after_waits_a_minute_then_longer() -> None:
    """Bitbucket's plain 429 holds the whole bucket; five seconds would not be enough."""
    limited = answer("Rate limit for this resource has been exceeded", 429)
    ours = faked(limited, limited, OK)
    ask(ours)
    assert [round(nap) for nap in ours.time.naps] == [60, 120]
    assert "429" in ours.time.told[0]
    assert ours.ledger.held["anonymous@api.bitbucket.org"] == ours.time.now - timedelta(seconds=0.001)


def test_a_429_uses_the_reset_header() -> None:
    """X-RateLimit-Reset is in seconds, not a time."""
    ours = faked(answer("", 429, x_ratelimit_reset="33"), OK)
    ask(ours)
    assert [round(nap) for nap in ours.time.naps] == [33]


@pytest.mark.parametrize("credential", ["me@example.com:" + TOKEN, TOKEN])
@pytest.mark.parametrize(
    "body",
    [b"", b"<html>Login</html>", recorded("cloud/error-token-invalid.json"), "Unauthorized"],
    ids=["empty", "html", "json", "text"],
)
def test_401_stops_at_once_and_explains(credential: str, body: bytes) -> None:
    """One request; the message has all three forms and the used one."""
    ours = faked(answer(body, 401), credential=credential)
    with pytest.raises(CredentialsRefused) as caught:
        ask(ours)
    words = str(caught.value)
    assert len(ours.server.asked) == 1
    assert ("Used: a token by the Bearer scheme" in words) == (":" not in credential)
    for form in ("ACCOUNT-EMAIL:TOKEN", "as TOKEN", "oauth:KEY:SECRET", "28 July 2026"):
        assert form in words


def test_a_401_without_a_credential_is_one_refusal() -> None:
    """Only this answer needs a credential."""
    ours = faked(answer(b"", 401, content_type="text/html"))
    with pytest.raises(UpstreamRefused, match="needs a credential") as caught:
        ask(ours)
    assert (caught.value.status, len(ours.server.asked)) == (401, 1)


@pytest.mark.parametrize(
    ("words", "headers"),
    [
        ("Too many invalid password attempts. Log in at https://bitbucket.org/", {}),
        (
            "CAPTCHA required",
            {"x-authentication-denied-reason": "CAPTCHA_CHALLENGE; login-url=https://d/login"},
        ),
    ],
)
@pytest.mark.parametrize("status", [401, 403])
def test_a_locked_account_stops_at_once(words: str, headers: dict[str, str], status: int) -> None:
    """An answer after too many wrong passwords ends the run, of Cloud or of a Data Center."""
    refusal = httpx.Response(status, headers=headers, json={"error": {"message": words}})
    ours = faked(refusal, credential=TOKEN)
    with pytest.raises(CredentialsRefused, match="browser"):
        ask(ours)
    assert len(ours.server.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (403, recorded("cloud/error-privileges.json"), "lacks the scope project (it has runner:write"),
        (
            403,
            {"error": {"detail": {"required": ["account", "project"], "granted": ["account"]}}},
            "lacks the scope project (it has account",
        ),
        (
            400,
            recorded("cloud/error-badrequest.json"),
            "Bad request; links.avatar: required key not provided",
        ),
        (400, recorded("cloud/error-badrequest-nobranch.json"), "source: branch not found: dummy"),
        (404, recorded("cloud/error-noapi.json"), "There is no API hosted at this URL"),
        (404, recorded("cloud/error-no-repository.json"), "Repository dev/null not found"),
        (404, {"error": {"message": "ijroioifeef"}}, "ijroioifeef"),
        (404, "Not Found", "404: Not Found"),
        (404, b"", "pagelen=100: 404 - is `url` right"),
        (404, "<html>nothing</html>", "pagelen=100: 404 - is `url` right"),
        (404, "line\r\none\x1b[31m\x00" + "x" * 9000, "line one"),
        (410, recorded("cloud/error-change-2770.json"), r'CHANGE-2770.*workspaces = \["your-workspace"\]'),
        (
            410,
            {"error": {"message": "Resource removed", "detail": "No\nlonger"}},
            "Resource removed; No longer",
        ),
        (400, {"error": "invalid_request", "error_description": "odd"}, "invalid_request; odd"),
        (409, {"errors": [{"context": None, "message": "DC says no", "exceptionName": None}]}, "DC says no"),
        (451, [1, 2], "451$"),
        (403, {"error": {"message": 5, "detail": [1], "fields": [2]}}, "403$"),
    ],
)
def test_other_refusals_carry_the_upstreams_message(status: int, body: object, words: str) -> None:
    """One request; they keep their status and fit into a line."""
    ours = faked(answer(body, status), credential=TOKEN)
    with pytest.raises(UpstreamRefused, match=words.replace("(", r"\(")) as caught:
        ask(ours)
    assert (caught.value.status, len(ours.server.asked)) == (status, 1)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"values": {}}, r"\$\.values"),
        ({}, "values"),
        ([], "object"),
        ({"values": [], "next": 5}, r"\$\.next"),
        (None, "object"),
    ],
)
def test_an_unknown_answer_is_not_retried(body: object, path: str) -> None:
    """Unknown JSON would be the same again; the error has the place in it."""
    ours = faked(answer(json.dumps(body), content_type="application/json"))
    with pytest.raises(UpstreamShapeError, match=path):
        ask(ours)
    assert len(ours.server.asked) == 1


def test_redirects_stay_on_the_host() -> None:
    """On the same host they are followed, three times at most."""
    away = answer("", 302, location="/2.0/elsewhere")
    ours = faked(away, away, OK)
    ask(ours)
    assert ours.server.urls[1:] == ["https://api.bitbucket.org/2.0/elsewhere"] * 2
    ours = faked(away)
    with pytest.raises(UpstreamRefused, match="too many redirects"):
        ask(ours)
    assert len(ours.server.asked) == 4


def test_a_redirect_to_tls_is_followed() -> None:
    """From https to http it is not."""
    ours = faked(answer("", 301, location="https://old.example/2.0/x"), OK, url="http://old.example/2.0")
    ask(ours)
    assert ours.server.urls[1] == "https://old.example/2.0/x"


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/2.0/x",
        "http://api.bitbucket.org/2.0/x",
        "https://api.bitbucket.org:8443/2.0/x",
        "https://u:p4ss@api.bitbucket.org/2.0/x",
        "https://api.bitbucket.org.evil.example/",
        "//evil.example/",
        "https://[bad",
        "file:///etc/passwd",
        "",
    ],
)
def test_redirects_elsewhere_are_refused(location: str) -> None:
    """The credential goes only to the configured host, with no weaker scheme."""
    ours = faked(answer("", 301, location=location), credential=TOKEN)
    with pytest.raises(UpstreamRefused, match="redirected") as caught:
        ask(ours)
    assert len(ours.server.asked) == 1
    assert "p4ss" not in str(caught.value)


@pytest.mark.parametrize("location", ["/2.0/{}", "https://evil.example/{}", "/2.0/x?q=a&w={}"])
def test_a_secret_in_a_redirect_is_neither_shown_nor_followed(location: str) -> None:
    """Addresses appear in errors and cursors, so one with the credential is refused."""
    ours = faked(answer("", 302, location=location.format(TOKEN)), credential=TOKEN)
    with pytest.raises(UpstreamRefused, match="redirected") as caught:
        ask(ours)
    assert len(ours.server.asked) == 1
    assert TOKEN not in str(caught.value)


def test_every_request_has_a_user_agent_and_a_timeout() -> None:
    """User agent, credential, and time-outs on connect, read, write and pool."""
    ours = faked(OK, credential="me@example.com:" + TOKEN, timeout=12)
    ask(ours)
    request = ours.server.asked[0]
    assert request.headers["user-agent"].startswith("bitbucket-mirror/")
    assert request.headers["authorization"].startswith("Basic ")
    assert set(request.extensions["timeout"].values()) == {12}


def test_nothing_is_sent_to_a_foreign_address() -> None:
    """The pool keeps to its origins."""
    ours = faked(OK, credential=TOKEN)
    for url in (
        "https://evil.example/2.0/x",
        "http://api.bitbucket.org/2.0/x",
        "https://a:b@api.bitbucket.org/",
    ):
        with pytest.raises(UpstreamShapeError, match="nothing is sent"):
            http_of(ours).get(url)
    with pytest.raises(UpstreamShapeError, match="not an address"):
        http_of(ours).get("https://api.bitbucket.org:notaport/")
    assert not ours.server.asked


@pytest.mark.parametrize("url", ["http://host:port/2.0", "http://host:99999999/2.0", "http://[host/2.0"])
def test_an_invalid_address_is_a_configuration_error(url: str) -> None:
    """At the connection, not as a traceback of the first request."""
    with pytest.raises(ConfigError, match="not a web address"):
        faked(OK, url=url)


def test_a_write_is_retried_only_if_it_did_not_happen() -> None:
    """After a refused connection and a 429; after a time-out or a 500 nobody knows."""
    ours = faked(httpx.ConnectError("refused"), answer("", 429, retry_after="1"), answer({}, 201))
    assert http_of(ours).post("repositories/w/s", {"scm": "git"}).status == 201
    assert [json.loads(request.content) for request in ours.server.asked] == [{"scm": "git"}] * 3
    for trouble in (httpx.ReadTimeout("?"), answer("", 500), httpx.ReadError("reset")):
        ours = faked(trouble)
        with pytest.raises(UpstreamBusy):
            http_of(ours).put("repositories/w/s", {})
        assert len(ours.server.asked) == 1
    ours = faked(answer("", 302, location="/2.0/x"))
    with pytest.raises(UpstreamRefused):
        http_of(ours).delete("repositories/w/s")


def test_the_date_header_is_read() -> None:
    """The upstream's clock counts for incremental runs, ours only without it."""
    ours = faked(
        page(), answer({"values": []}, date="Mon, 23 Nov 2026 11:58:00 GMT"), answer({"values": []}, date="x")
    )
    dates = [ours.upstream.fetch_members("w", None).date for _ in range(3)]
    assert dates == [NOON, NOON - timedelta(minutes=2), NOON]
    ours = faked(answer({"values": []}, date="Fri, 31 Dec 9999 23:59:59 -0100"))
    assert ours.upstream.fetch_members("w", None).date == NOON


def grants(*lives: float, good: str = "t1") -> Responder:
    """Serve a token endpoint, and an API that accepts only the token `good`."""
    tokens = iter(f"t{number}" for number in range(1, 100))
    left = iter(lives)

    def respond(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/site/oauth2/access_token":
            assert request.headers["authorization"].startswith("Basic ")
            assert request.content == b"grant_type=client_credentials"
            return answer({"access_token": next(tokens), "expires_in": next(left)})
        return OK if request.headers["authorization"] == f"Bearer {good}" else answer("", 401)

    return respond


def test_oauth_fetches_one_token_and_keeps_it() -> None:
    """From Bitbucket's web host, with the consumer's key and secret."""
    ours = faked(grants(3600), credential="oauth:key:s3cret")
    ask(ours)
    ask(ours)
    assert [request.url.host for request in ours.server.asked] == [
        "bitbucket.org",
        *["api.bitbucket.org"] * 2,
    ]


@pytest.mark.parametrize("life", [1e300, -5, 0])
def test_oauth_tokens_live_a_day_at_most(life: float) -> None:
    """Whatever the endpoint says."""
    ours = faked(grants(life, 3600), credential="oauth:key:s3cret")
    ask(ours)
    assert len(ours.server.asked) == 2


def test_oauth_renews_before_the_end() -> None:
    """A token is not used in its last two minutes."""
    ours = faked(grants(3600, 3600, good="t2"), credential="oauth:key:s3cret")
    with pytest.raises(CredentialsRefused):  # t1 and t2 both come at once, t1 being refused ...
        faked(grants(3600, 3600, good="t3"), credential="oauth:key:s3cret").upstream.fetch_members("w", None)
    ask(ours)  # ... and here t1 is refused, t2 accepted
    asked = len(ours.server.asked)
    assert asked == 4
    ours.time.now += timedelta(seconds=3500)
    with pytest.raises(StopIteration):  # it wanted a third token, which the server does not have
        ask(ours)


def test_oauth_that_is_refused_is_a_refused_credential() -> None:
    """The endpoint's 400 `invalid_client` counts as a 401, and is not retried."""
    ours = faked(
        answer({"error": "invalid_client", "error_description": "bad key"}, 400), credential="oauth:k:s3cret"
    )
    with pytest.raises(CredentialsRefused, match="bad key"):
        ask(ours)
    assert len(ours.server.asked) == 1


@pytest.mark.parametrize(
    ("renewal", "error", "asked"),
    [
        (answer({"error": "invalid_client"}, 400), CredentialsRefused, 1),
        (answer({"error": "access_denied"}, 403), CredentialsRefused, 1),
        (answer("gone", 404), CredentialsRefused, 1),
        (answer("", 302, location="https://elsewhere.example/login"), CredentialsRefused, 1),
        (answer({"token": "of another shape"}), CredentialsRefused, 1),
        (answer("<html>Log in</html>", content_type="text/html"), CredentialsRefused, 3),
        (answer("", 503), UpstreamError, 3),
        (httpx.ConnectError("away"), UpstreamError, 3),
    ],
)
def test_a_token_that_ends_and_is_not_renewed_ends_the_run(
    renewal: httpx.Response | Exception, error: type[MirrorError], asked: int
) -> None:
    """The refusal is of the token, not of the repository; it is retried like others."""
    ended = answer({"type": "error", "error": {"message": "Access token expired."}}, 401)
    ours = faked(answer({"access_token": "t1"}), OK, ended, renewal, credential="oauth:key:s3cret")
    ask(ours)
    with pytest.raises(error, match="access_token") as caught:
        ask(ours)
    assert type(caught.value) is error
    assert len(ours.server.asked) == 3 + asked


SECRETS = {"basic": "me@example.com:" + TOKEN, "bearer": TOKEN, "oauth": "oauth:key:" + TOKEN}


@pytest.mark.parametrize("credential", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 410, 429, 500])
def test_secrets_are_in_no_error_and_no_log(credential: str, status: int) -> None:
    """Even if an upstream repeats everything, chained errors included."""

    def echo(request: httpx.Request) -> httpx.Response:
        told = request.headers.get("authorization", "") + " " + TOKEN
        if "oauth2" in request.url.path and status not in (400, 401):
            return answer({"access_token": TOKEN + "-access", "expires_in": 3600})
        if status == 200:
            return answer(f"<html>{told}</html>", content_type="text/html")
        return answer({"error": {"message": told}}, status, location=f"https://u:{TOKEN}@evil.example/")

    ours = faked(echo, credential=credential, attempts=2)
    with pytest.raises(MirrorError) as caught:
        ask(ours)
    seen = "".join(traceback.format_exception(caught.value, limit=0))
    error: BaseException | None = caught.value
    while error is not None:
        seen += f"{error!s}{error!r}{error.args}"
        error = error.__cause__ or error.__context__
    http = http_of(ours)
    seen += "".join(ours.time.told) + f"{http!r}{http.credential!r}{http.__dict__!r}{list(ours.ledger.asked)}"
    basic = http.credential.basic.removeprefix("Basic ")
    assert TOKEN not in seen
    assert basic not in seen
