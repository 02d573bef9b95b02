"""What is logged of runs: a line for each, with all counts as fields; phases and waits for those who ask."""

import logging
from dataclasses import dataclass

import msgspec

from mirror.report import Counts, Reporter, Silent, Summary
from mirror.times import age_text

log = logging.getLogger("mirror.runs")

_LEVELS = {"failed": logging.ERROR, "incomplete": logging.WARNING}


def log_run(summary: Summary) -> None:
    """Log the account of a run in one line."""
    fields = {
        "upstream": summary.upstream,
        "kind": summary.kind,
        "state": summary.state,
        "seconds": round(summary.seconds, 3),
        "error": summary.error,
        **msgspec.structs.asdict(summary.counts),
        "failures": len(summary.failures),
        "missing": summary.missing,
    }
    level = logging.DEBUG if _is_routine(summary) else _LEVELS.get(summary.state, logging.INFO)
    log.log(level, "%s", run_line(summary), extra=fields)


def _is_routine(summary: Summary) -> bool:
    """Tell whether a run is one of the many looks a day that found nothing."""
    counts = summary.counts
    news = counts.repositories_new + counts.repositories_changed + counts.repositories_gone
    news += counts.refs_new + counts.refs_changed + counts.refs_gone
    return summary.kind == "watch" and summary.state != "failed" and not news and not summary.failures


def run_line(summary: Summary) -> str:
    """Give the account of a run in one line."""
    counts = summary.counts
    rows, refs = row_counts(counts)
    asked = f"{counts.requests + counts.git_requests:,} requests in {seconds_text(summary.seconds)}"
    failed = f"; {len(summary.failures):,} failed" if summary.failures else ""
    failed += f"; {summary.missing:,} missing, see mirror status" if summary.missing else ""
    error = f": {summary.error}" if summary.error else ""
    kind = "" if summary.kind in ("full", "incremental") else f" {summary.kind}"
    head = f"{summary.upstream}{kind} {summary.state}{error}"
    return f"{head}; repositories {rows}; refs {refs}; {asked}{failed}"


def row_counts(counts: Counts) -> tuple[str, str]:
    """Say what became of repositories and of refs."""
    new, changed, gone = counts.repositories_new, counts.repositories_changed, counts.repositories_gone
    refs = f"{counts.refs_new:,} new, {counts.refs_changed:,} moved, {counts.refs_gone:,} gone"
    return f"{new:,} new, {changed:,} changed, {gone:,} gone", refs


def seconds_text(seconds: float) -> str:
    """Say a duration: ``0.4 s``, ``12 s``, ``3 min``."""
    return f"{seconds:.1f} s" if seconds < 10 else age_text(seconds)


@dataclass
class Logged:
    """A listener that logs, beside another one that shows progress where somebody watches."""

    shown: Reporter | None = None

    def __post_init__(self) -> None:
        self._inner: Reporter = self.shown or Silent()
        self._waits = ""

    def phase(self, what: str, total: int | None) -> None:
        """Log it for those who want to know everything."""
        self._inner.phase(what, total)
        if total != 0:
            log.debug("%s%s", what, f": {total:,}" if total is not None else "")

    def step(self, count: int = 1) -> None:
        """Show it."""
        self._inner.step(count)

    def waiting(self, seconds: float, why: str) -> None:
        """Log once why nothing happens."""
        self._inner.waiting(seconds, why)
        if why != self._waits:
            self._waits = why
            log.info("waiting %s: %s", age_text(seconds), why)

    def note(self, text: str) -> None:
        """Log it."""
        log.info("%s", text)
