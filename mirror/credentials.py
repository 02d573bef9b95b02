"""The credential of an upstream: read from the environment or a file, never shown.

Its text decides the form: ``user:token`` is Basic (an API token, whose user is the account's e-mail),
``token`` is Bearer (an access token), ``oauth:KEY:SECRET`` is an OAuth consumer, nothing is anonymous. The
access tokens of an OAuth consumer are kept until shortly before they expire; threads share them.
"""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

import msgspec

from mirror.errors import ConfigError
from mirror.times import Clock

Redact = Callable[[str], str]
Form = Literal["basic", "bearer", "oauth", "anonymous"]

LARGEST_FILE = 65_536
SHORTEST_SECRET = 12
REDACTED = "[secret]"
SHORTEST_REDACTED = 4  # redacting a shorter secret would remove letters from many words
_FORMS = 'it holds "user:token", "token" or "oauth:KEY:SECRET"'


@dataclass(frozen=True, repr=False)
class Credential:
    """A credential; its secret appears in headers only.

    `user` is the user name or the OAuth consumer's key, "" for a token alone.
    """

    form: Form = "anonymous"
    user: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return f"<Credential {self.form}>"

    @property
    def bucket(self) -> str:
        """The name of the budget in which requests count; it reveals no secret.

        Bitbucket counts by user, access token or OAuth consumer, else by address
        (support.atlassian.com/bitbucket-cloud/docs/api-request-limits).
        """
        if self.form == "anonymous":
            return "anonymous"
        subject = self.secret if self.form == "bearer" else self.user
        return f"{self.form}-{hashlib.sha256(subject.encode()).hexdigest()[:16]}"

    @property
    def authorization(self) -> str | None:
        """The value of the Authorization header; None if there is none or it must be fetched first."""
        if self.form == "basic":
            return self.basic
        return f"Bearer {self.secret}" if self.form == "bearer" else None

    @property
    def basic(self) -> str:
        """User and secret in the form of HTTP's Basic scheme."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode("ascii")

    def redacted(self, text: str) -> str:
        """Remove the secret, in every spelling, from a text."""
        if len(self.secret) < SHORTEST_REDACTED:
            return text
        return redacting([self.secret, self.basic.removeprefix("Basic ").rstrip("=")])(text)


def redacting(secrets: Iterable[str]) -> Redact:
    """Return a function that removes secrets from a text, also as JSON, URL-encoded and in Base64."""
    spellings = set[str]()
    for secret in secrets:
        if len(secret) >= SHORTEST_REDACTED:
            # Without the signs that fill it up, since not all write them.
            encoded = {
                encode(secret.encode()).decode().rstrip("=")
                for encode in (base64.b64encode, base64.urlsafe_b64encode)
            }
            in_json = {json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
            # Errors of libraries quote what they got as Python, JSON or an address does.
            spellings |= {secret, repr(secret)[1:-1], quote(secret, safe=""), *encoded, *in_json}
    ordered = sorted(spellings, key=len, reverse=True)  # a shorter one may be part of a longer one

    def redact(text: str) -> str:
        for spelling in ordered:
            text = text.replace(spelling, REDACTED)
        return text

    return redact


ANONYMOUS = Credential()


def read_credential(source: str | None, environ: Mapping[str, str] = os.environ) -> Credential:
    """Read what `credential` of an upstream points to: ``env:NAME``, ``file:PATH``, or None for anonymous.

    Raises ConfigError with the remedy, never with the text that was read.
    """
    if source is None:
        return ANONYMOUS
    return from_text(_read("credential", source, environ, so_that=f"so that {_FORMS}"), where=source)


def read_secret(source: str, environ: Mapping[str, str] = os.environ) -> str:
    """Read a secret that is not a login, such as a webhook's; raises ConfigError without showing it."""
    text = _read("secret", source, environ, so_that="with the secret alone in it")
    if len(text) < SHORTEST_SECRET:
        raise ConfigError(
            f"secret {source}: it is shorter than {SHORTEST_SECRET} characters; make a longer one"
        )
    return text


def from_text(text: str, *, where: str) -> Credential:
    """Decode a credential from its text; `where` names its source in errors. Raises ConfigError."""
    text = bare(text)
    if not text:
        raise ConfigError(f"credential {where}: it is empty; write it so that {_FORMS}")
    if not text.isprintable():
        raise ConfigError(f"credential {where}: it has several lines or control characters; {_FORMS}")
    if is_quoted(text):
        raise ConfigError(f"credential {where}: it is in quotation marks; write it without them")
    user, colon, secret = text.partition(":")
    if not colon:
        if not text.isascii() or " " in text:
            raise ConfigError(f"credential {where}: a token contains no spaces and no accents; copy it again")
        return Credential("bearer", secret=text)
    if user == "oauth":
        user, colon, secret = secret.partition(":")
    if not user or not secret:
        raise ConfigError(f"credential {where}: one part of it is empty; {_FORMS}")
    return Credential("oauth" if text.startswith("oauth:") else "basic", user, secret)


def is_quoted(text: str) -> bool:
    """Return whether a text is in quotation marks, which a shell removes, but not docker's `--env-file`."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\""


def bare(text: str) -> str:
    """Return a secret without what editors add: a byte order mark, and white space around it."""
    return text.strip().removeprefix("\ufeff").strip()


def _read(what: str, source: str, environ: Mapping[str, str], *, so_that: str) -> str:
    """Read the secret at ``env:NAME`` or ``file:PATH``, as nothing else does; raises ConfigError.

    `what` and `so_that` are for its message.
    """
    scheme, _, place = source.partition(":")
    if scheme == "env" and place:
        if place not in environ:
            raise ConfigError(f"{what} {source}: {place} is not set; export {place} {so_that}")
        return bare(environ[place])
    if scheme == "file" and place:
        return bare(_file_content(Path(place), f"{what} {source}", so_that))
    raise ConfigError(f'{what}: say where the secret is: "env:NAME" or "file:PATH"; never the secret itself')


def _file_content(place: Path, named: str, so_that: str) -> str:
    """Read a small file of text; raises ConfigError."""
    try:
        path = place.expanduser()
        # A named pipe given by mistake would hang the program.
        if not path.is_file():
            why = "not a regular file" if path.exists() else "no such file"
            raise ConfigError(f"{named}: {why}; create it with mode 600 {so_that}")
        with path.open(encoding="utf-8") as file:
            text = file.read(LARGEST_FILE + 1)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"{named}: cannot be read ({type(error).__name__}); check its owner and mode"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{named}: it is not UTF-8 text; write it again {so_that}") from None
    if len(text) > LARGEST_FILE:
        raise ConfigError(f"{named}: the file is too large for a secret; write it again {so_that}")
    return text


EARLY_SECONDS = 120.0  # a token must not expire during a request
LONGEST_LIFETIME = 86_400.0


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """The token endpoint's answer; `expires_in` is seconds, 3,600 to 7,200 at Bitbucket."""

    access_token: str
    expires_in: float = 3600.0

    def __repr__(self) -> str:
        return "<Grant>"


def token_address(url: str) -> str:
    """Return the address of the token endpoint: on Bitbucket's web host, not its API host."""
    parts = urlsplit(url)
    if parts.hostname == "api.bitbucket.org":
        return "https://bitbucket.org/site/oauth2/access_token"
    return f"{parts.scheme}://{parts.netloc}/site/oauth2/access_token"


class AccessTokens:
    """Keeps one access token: `token`, "" where there is none; `fetch` asks for a new one."""

    def __init__(self, fetch: Callable[[], Grant], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self.token = ""
        self._good_until = clock()

    def get(self) -> str:
        """Return a token that is still valid; other threads wait while one fetches it."""
        with self._lock:
            if not self.token or self._clock() >= self._good_until:
                grant = self._fetch()
                lifetime = min(max(grant.expires_in, 0.0), LONGEST_LIFETIME)
                seconds = max(lifetime - EARLY_SECONDS, lifetime / 2)
                self.token, self._good_until = grant.access_token, self._clock() + timedelta(seconds=seconds)
            return self.token

    def drop(self, refused: str) -> None:
        """Forget a refused token, unless another thread has replaced it already."""
        with self._lock:
            if self.token == refused:
                self.token = ""
