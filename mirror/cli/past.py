"""How commands print a repository at a moment, with the last look before it and the first one after it."""

from mirror.queries.past_state import Looks, Past, PastRef
from mirror.times import day_text, from_text


def as_of(past: Past) -> str:
    """Say of which moment a repository is shown."""
    exact = ", true to the day: older history was compacted" if past.to_the_day else ""
    return f"as the mirror knew it at {_day(past.at)}{exact}"


def looks_text(looks: Looks) -> str:
    """Write the looks around a moment: ``2026-11-02 10:00 UTC, and next 2026-11-05 10:00 UTC``."""
    before = _day(looks.before) if looks.before else "never"
    return f"{before}, and next {_day(looks.after)}" if looks.after else f"{before}, and not since"


def ref_looks_text(ref: PastRef) -> str:
    """Say when a branch or a tag was seen at its commit, and what the next look found."""
    looks = ref.looks
    if looks.after is None:
        return f"seen {_day(looks.before)}, not looked at since"
    if ref.next_target == ref.row.target_hash:
        found = "the same"
    else:
        found = f"at {ref.next_target[:12]}" if ref.next_target else "gone"
    return f"seen {_day(looks.before)}; {_day(looks.after)}: {found}"


def _day(moment: str | None) -> str:
    return day_text(from_text(moment)) if moment else "never"
