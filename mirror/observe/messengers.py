"""How an alert travels: to a web address as JSON, as a healthchecks-style ping, or to a command's input."""

import http.client
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence

SECONDS = 10.0
COMMAND_SECONDS = 30.0


class NotDelivered(Exception):
    """An alert did not arrive. The message holds no address: whoever knows it could write there."""


def post(url: str, body: bytes, *, content_type: str = "application/json") -> None:
    """Post a body to an address; raises NotDelivered for anything but success."""
    headers = {"Content-Type": content_type, "User-Agent": "bitbucket-mirror"}
    try:
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310 - checked
        with urllib.request.urlopen(request, timeout=SECONDS):  # noqa: S310 - the operator's own address
            pass
    except urllib.error.HTTPError as error:
        error.close()
        raise NotDelivered(f"the answer was {error.code}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise NotDelivered(f"no answer ({type(reason).__name__})") from None


def ping(url: str, text: str, *, failed: bool) -> None:
    """Ping an address, with ``/fail`` behind it for a failure; raises NotDelivered."""
    base, mark, query = url.partition("?")
    post(
        base.rstrip("/") + ("/fail" if failed else "") + mark + query,
        text.encode(),
        content_type="text/plain",
    )


def call(command: Sequence[str], body: bytes) -> None:
    """Run a command with a body as its standard input; raises NotDelivered unless it ends with 0."""
    try:
        subprocess.run(  # noqa: S603 - the operator's own command
            list(command),
            input=body,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise NotDelivered(f"{command[0]} ended with {error.returncode}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotDelivered(f"{command[0]}: {type(error).__name__}") from None
