"""Bitbucket as seen from here: what can be asked of it, and how often."""

import sys

# httpx imports its own command line where rich is installed: a quarter of all that a sync imports. It expects
# that this may fail.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
