"""Retries: which requests, how many attempts, which delays."""

from random import Random

import tenacity

from mirror.config import Retry
from mirror.errors import UpstreamBusy
from mirror.upstream.budget import Budget

Retrying = tenacity.Retrying
"""Calls a function until it succeeds or no attempt is left, then raises the last error."""


class NotSent(UpstreamBusy):
    """The request was never sent, so that even a write may be retried."""


class RetryPolicy:
    """Which requests are retried: reads whenever it may help, writes only where they were certainly not done.

    `retry` is configured; `budget` waits and tells the user why; `random` spreads the delays.
    """

    def __init__(self, retry: Retry, budget: Budget, random: Random) -> None:
        self._retry = retry
        self._budget = budget
        self._random = random
        self.reads = Retrying(
            retry=tenacity.retry_if_exception_type(UpstreamBusy),
            wait=self._delay,
            stop=tenacity.stop_after_attempt(retry.attempts),
            before_sleep=self._wait,
            sleep=lambda _: None,  # `_wait` has waited already
            reraise=True,
        )
        self.writes = self.reads.copy(retry=tenacity.retry_if_exception(_was_not_done))

    def reads_at_most(self, attempts: int) -> Retrying:
        """Return the rule for reads with another number of attempts."""
        return self.reads.copy(stop=tenacity.stop_after_attempt(attempts))

    def _delay(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds until the next attempt: Retry-After, else a growing delay with jitter."""
        error = _error_of(state)
        if error.status == 429:
            return 0.0  # the budget waits: 429 holds the whole account
        if error.retry_after:
            return error.retry_after
        longest: float = min(self._retry.max_delay, self._retry.first_delay * 2 ** (state.attempt_number - 1))
        return longest * self._random.uniform(0.5, 1.0)

    def _wait(self, state: tenacity.RetryCallState) -> None:
        """Wait before the next attempt, and tell the user why."""
        self._budget.repeat_next()
        seconds = state.next_action.sleep if state.next_action else 0.0
        if seconds:
            number = state.attempt_number + 1
            why = f"{_error_of(state)}; try {number} of {self._retry.attempts} in {seconds:.0f} s"
            self._budget.pause(seconds, why)


def _error_of(state: tenacity.RetryCallState) -> UpstreamBusy:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, UpstreamBusy) else UpstreamBusy(str(error))


def _was_not_done(error: BaseException) -> bool:
    """Return whether a write was certainly not done, so that it may be retried."""
    return isinstance(error, NotSent) or (isinstance(error, UpstreamBusy) and error.status == 429)
