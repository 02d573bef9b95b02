"""Telling askers by their credentials, and giving out OAuth tokens."""

from mirror.sandbox.exchange import (
    ANONYMOUS,
    OAUTH,
    PASSWORD,
    TOKEN,
    Answer,
    Asker,
    Refused,
    Request,
    basic,
    bearer,
    error,
    json_answer,
    no_credentials,
    person,
)
from mirror.sandbox.world import World

GIT_USERS = {"x-token-auth", "x-bitbucket-api-token-auth"}


class Identity:
    """Knows who a request is from. `lenient` lets wrong credentials pass for none, as some endpoints do."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._issued: dict[str, int] = {}

    def asker(self, request: Request, *, for_git: bool = False, lenient: bool = False) -> Asker:
        """Tell who asks; Refused with a 401 for credentials that are wrong.

        Git takes user names of its own for tokens, and no e-mail addresses; REST the other way round.
        """
        header = request.headers.get("authorization")
        if header is None:
            return ANONYMOUS
        token = bearer(header)
        found = self._of_basic(header, for_git=for_git) if token is None else self._of_token(token)
        if found is None and not lenient:
            message = "Token is invalid, expired, or not supported for this endpoint."
            raise Refused(no_credentials() if token is None else error(401, message))
        return found or ANONYMOUS

    def grant(self, request: Request, seconds: int) -> Answer:
        """Answer POST /site/oauth2/access_token: client credentials sandbox:sandbox buy a token."""
        wanted = request.form().get("grant_type") if request.body else None
        if basic(request.headers.get("authorization", "")) != (PASSWORD, PASSWORD):
            problem = {
                "error": "unauthorized_client",
                "error_description": "Invalid OAuth client credentials",
            }
            return json_answer(problem, 401)
        if wanted not in {"client_credentials", "refresh_token"}:
            problem = {"error": "unsupported_grant_type", "error_description": "Unsupported grant type"}
            return json_answer(problem, 400)
        token = f"granted-{len(self._issued) + 1}"
        self._issued[token] = self._world.clock.now() + seconds * 1_000_000
        return json_answer(
            {
                "access_token": token,
                "refresh_token": f"again-{token}",
                "expires_in": seconds,
                "scopes": "repository account project",
                "token_type": "bearer",
                "state": "client_credentials",
            }
        )

    def _of_basic(self, header: str, *, for_git: bool) -> Asker | None:
        user, password = basic(header) or ("", "")
        if for_git and user in GIT_USERS:
            return self._of_token(password)
        name = user if for_git else user.removesuffix("@example.com")
        known = password == PASSWORD and self._world.person(name) is not None and not name.startswith("{")
        return person(name) if known else None

    def _of_token(self, token: str) -> Asker | None:
        if token == PASSWORD:
            return TOKEN
        return OAUTH if self._issued.get(token, 0) > self._world.clock.now() else None
