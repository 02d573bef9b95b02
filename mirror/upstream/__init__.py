"""Clients of Bitbucket's APIs and of git, within a budget of requests."""

import sys

# If rich is installed, httpx imports its own command line: a quarter of all that a sync imports. httpx allows
# for this import to fail.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
