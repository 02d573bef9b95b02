"""What is asked again, how often, and after how long. No other file imports tenacity."""

from random import Random

import tenacity

from mirror.config import Retry
from mirror.errors import UpstreamBusy
from mirror.upstream.budget import Budget

Retrying = tenacity.Retrying
"""Calls what it is given until that succeeds or no try is left, and raises the last error."""


class NotSent(UpstreamBusy):
    """The request never left, so that even a write may be repeated."""


class RetryPolicy:
    """The rule of repeating: reads whenever it may help, writes only if they were not done for sure."""

    def __init__(self, retry: Retry, budget: Budget, random: Random) -> None:
        self._retry = retry
        self._budget = budget
        self._random = random
        self.reads = Retrying(
            retry=tenacity.retry_if_exception_type(UpstreamBusy),
            wait=self._delay,
            stop=tenacity.stop_after_attempt(retry.attempts),
            before_sleep=self._wait,
            sleep=lambda _: None,  # `_wait` has waited, and told why
            reraise=True,
        )
        self.writes = self.reads.copy(retry=tenacity.retry_if_exception(_was_not_done))

    def reads_at_most(self, attempts: int) -> Retrying:
        """Return the rule for reads with another number of tries."""
        return self.reads.copy(stop=tenacity.stop_after_attempt(attempts))

    def _delay(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds until the next try: as told, else growing and jittered."""
        error = _error_of(state)
        if error.status == 429:
            return 0.0  # the whole bucket is held, which the budget waits for
        if error.retry_after:
            return error.retry_after
        longest: float = min(self._retry.max_delay, self._retry.first_delay * 2 ** (state.attempt_number - 1))
        return longest * self._random.uniform(0.5, 1.0)

    def _wait(self, state: tenacity.RetryCallState) -> None:
        """Wait before the next try, telling why."""
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
    """Tell whether a write was certainly not done, so that it may be asked again."""
    return isinstance(error, NotSent) or (isinstance(error, UpstreamBusy) and error.status == 429)
