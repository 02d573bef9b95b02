"""A served mirror with private rows of every sort, and one caller of every sort."""

from pathlib import Path
from typing import Any

from asgi_client import AsgiClient, basic, bearer, client_of, make_tokens
from fixtures_db import fill_mixed

STRANGERS = (
    "anonymous", "revoked", "expired", "bad", "bad basic", "broken header", "basic without trust",
    "forged login", "trusted user", "token in the address",
)  # fmt: skip
"""Callers who see none of the private rows through tables and SQL."""

WITHOUT_CREDENTIAL = ("anonymous", "forged login", "trusted user", "token in the address")
"""Strangers who send no credential that can be refused; all others get a 401."""


class MixedMirror:
    """A mirror with private rows, served twice: `trusting` believes Basic user names, `served` does not."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mirror.db"
        filled = fill_mixed(self.path)
        self.tokens = make_tokens(filled.store)
        filled.store.close()
        self.served = client_of(self.path)
        self.trusting = client_of(self.path, trust_basic_user=True)

    def stranger(self, name: str) -> tuple[AsgiClient, dict[str, Any]]:
        """Return a client without credentials, and the options of its requests."""
        return {
            "anonymous": (self.served, {}),
            "revoked": (self.served, {"headers": bearer(self.tokens["revoked"])}),
            "expired": (self.served, {"headers": bearer(self.tokens["expired"])}),
            "bad": (self.served, {"headers": bearer(self.tokens["bad"])}),
            "bad basic": (self.served, {"headers": basic("jespern", self.tokens["bad"])}),
            "broken header": (self.served, {"headers": {"Authorization": "Basic !!"}}),
            "basic without trust": (self.served, {"headers": basic("jespern", "any")}),
            "forged login": (self.served, {"cookies": {"ds_actor": "eyJhIjp7ImlkIjoicm9vdCJ9fQ.x"}}),
            "trusted user": (self.trusting, {"headers": basic("jespern", "any")}),
            "token in the address": (self.served, {"params": {"_token": self.tokens["read"]}}),
        }[name]
