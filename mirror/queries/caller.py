"""Who asks, and what is open to them."""

import json
from typing import Any

import msgspec


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who asks. `name` says who in messages; `username` is the mirrored user they speak as, if any.

    `sees_all` tells whether nothing is hidden from them. Otherwise they see the private repositories of the
    rows `user_ids` of `users`, and of their workspaces: a person and their namespace can be two rows.
    """

    name: str = "anonymous"
    token_id: int | None = None
    username: str | None = None
    user_ids: tuple[int, ...] = ()
    sees_all: bool = False
    may_write: bool = False
    last_used_at: str | None = None

    @property
    def known(self) -> bool:
        """Tell whether a credential was accepted."""
        return self.token_id is not None or bool(self.user_ids)

    @property
    def values(self) -> dict[str, Any]:
        """The parameter that conditions on this caller name: `:ids`, the caller's own rows of `users`."""
        return {"ids": json.dumps(self.user_ids)}


ANONYMOUS = Caller()
OPERATOR = Caller(name="operator", sees_all=True)
"""Whoever runs commands on the file itself."""
