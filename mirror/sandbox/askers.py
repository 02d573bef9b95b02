"""Who asks, and how they prove it."""

import base64
import binascii
from dataclasses import dataclass

PASSWORD = "sandbox"  # noqa: S105 - the sandbox's only secret, and no secret at all


@dataclass(frozen=True, slots=True)
class Asker:
    """Whoever sent a request: nobody, a person, or an access token that sees everything."""

    kind: str  # anonymous | person | token | oauth
    name: str = ""

    @property
    def sees_all(self) -> bool:
        """Tell whether every repository is visible."""
        return self.kind in {"token", "oauth"}

    @property
    def key(self) -> str:
        """The name under which requests are counted."""
        return f"{self.kind}:{self.name}" if self.name else self.kind


ANONYMOUS = Asker("anonymous")
TOKEN = Asker("token")
OAUTH = Asker("oauth")


def person(name: str) -> Asker:
    """Give the asker that signs in under this user name."""
    return Asker("person", name.lower())


def basic(header: str) -> tuple[str, str] | None:
    """Read user and password from an Authorization header, or give None."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None


def bearer(header: str) -> str | None:
    """Read the token from an Authorization header, or give None."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
