"""Did you mean: the nearest of the words that are allowed."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return ``; did you mean 'search'?`` for a word that is nearly one of those allowed, else ""."""
    by_lower = {each.lower(): each for each in allowed}
    near = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""
