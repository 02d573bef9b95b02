"""A Data Center with prepared answers."""

from typing import Any

from upstream_fakes import answer, faked

HOST = "http://localhost:7990"
PUBLIC = {"slug": "s", "id": 1, "project": {"key": "P", "id": 1}, "public": True}
PERMISSION = {
    "errors": [
        {
            "context": None,
            "message": "You are not permitted to access this resource",
            "exceptionName": "com.atlassian.bitbucket.AuthorisationException",
        }
    ]
}


def connected(*answers: Any, **settings: Any) -> Any:
    """Connect to a Data Center with prepared answers."""
    return faked(*answers, kind="datacenter", url=HOST, **settings)


def paged(*values: Any, **others: Any) -> Any:
    """Prepare a page."""
    return answer(
        {"size": len(values), "limit": 25, "isLastPage": True, "start": 0, "values": values} | others
    )
