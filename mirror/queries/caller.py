"""The caller: who sends a request, and what the caller may see."""

import json
from typing import Any

import msgspec


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends a request, and what the caller may see.

    - `name` identifies the caller in messages.
    - `username` is the mirrored user that the caller speaks for, if any.
    - `user_ids` are the caller's rows of `users`: a person and the person's namespace can be two rows.
    - `sees_all`: nothing is hidden from the caller. Otherwise the caller sees public repositories, and the
      private ones of `user_ids` and of their workspaces.
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
        """Return whether a credential was accepted."""
        return self.token_id is not None or bool(self.user_ids)

    @property
    def values(self) -> dict[str, Any]:
        """The parameter that conditions on this caller name: `:ids`, the caller's own rows of `users`."""
        return {"ids": json.dumps(self.user_ids)}


ANONYMOUS = Caller()
OPERATOR = Caller(name="operator", sees_all=True)
"""The caller of commands on the file itself."""
