"""How many random examples a test tries: few in `make test`, many in `make test-long`."""

import os

TIMES = int(os.environ.get("EXAMPLES", "1"))


def examples(few: int) -> int:
    """Return how many examples to try where `few` of them are enough for every day."""
    return few * TIMES
