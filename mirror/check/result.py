"""The result of a check, and the exit code for all results."""

import msgspec

from mirror.errors import ConfigError

CONFIGURATION, CREDENTIALS, UNUSABLE = 2, 3, 4
"""Exit codes, the most basic fault first."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check. `remedy` is what to do, None if there is nothing to do.

    A check that is ok may have a remedy too: advice. `code` is the exit code of a failed check.
    """

    name: str
    ok: bool
    detail: str
    remedy: str | None = None
    code: int = 0

    def public(self) -> dict[str, object]:
        """Return the check as `--json` prints it."""
        return {"name": self.name, "ok": self.ok, "detail": self.detail, "remedy": self.remedy}


def exit_code(checks: list[Check]) -> int:
    """Return the exit code of the most basic fault; 0 without faults."""
    return min((check.code for check in checks if not check.ok), default=0)


def faulty_configuration(error: ConfigError) -> Check:
    """Return the check of a configuration that cannot be read: without one, nothing else can be checked."""
    detail, _, remedy = str(error).partition("; ")
    return bad("configuration", CONFIGURATION, detail, remedy or "mend the file; docs/configuration.md")


def bad(name: str, code: int, detail: str, remedy: str) -> Check:
    """Return the check of a fault."""
    return Check(name=name, ok=False, detail=detail, remedy=remedy, code=code)
