"""Retries: which requests, how many attempts, which delays."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, TypeVar

from mirror.config import Retry
from mirror.errors import UpstreamBusy
from mirror.times import age_text
from mirror.upstream.budget import Budget

if TYPE_CHECKING:
    import tenacity

Answer = TypeVar("Answer")


class NotSent(UpstreamBusy):
    """The request was never sent, so that even a write may be retried."""


class Retrying:
    """Calls a function until it succeeds or no attempt is left, then raises the last error.

    `may_repeat` says which errors are worth another attempt, `delay` and `wait` what comes before it.
    """

    def __init__(
        self,
        attempts: int,
        *,
        may_repeat: "Callable[[BaseException], bool]",
        delay: "Callable[[tenacity.RetryCallState], float]",
        wait: "Callable[[tenacity.RetryCallState], None]",
    ) -> None:
        self.attempts, self._may_repeat, self._delay, self._wait = attempts, may_repeat, delay, wait

    def __call__(self, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Call the function with its arguments."""
        try:
            return function(*arguments)
        except UpstreamBusy as error:
            failed = [error]

        def attempt() -> Answer:
            if failed:
                raise failed.pop()
            return function(*arguments)

        # Most runs see no error, and the import takes longer than most commands.
        import tenacity  # noqa: PLC0415

        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._may_repeat),
            wait=self._delay,
            stop=tenacity.stop_after_attempt(self.attempts),
            before_sleep=self._wait,
            sleep=lambda _: None,  # `wait` has waited already
            reraise=True,
        )
        return again(attempt)


class RetryPolicy:
    """Which requests are retried: reads whenever it may help, writes only where they were certainly not done.

    `retry` is configured; `budget` waits and tells the user why; `random` spreads the delays.
    """

    def __init__(self, retry: Retry, budget: Budget, random: Random) -> None:
        self._retry = retry
        self._budget = budget
        self._random = random
        self.reads = self.reads_at_most(retry.attempts)
        self.writes = self._retrying(retry.attempts, _was_not_done)

    def reads_at_most(self, attempts: int) -> Retrying:
        """Return the rule for reads with another number of attempts."""
        return self._retrying(attempts, lambda error: isinstance(error, UpstreamBusy))

    def _retrying(self, attempts: int, may_repeat: Callable[[BaseException], bool]) -> Retrying:
        return Retrying(attempts, may_repeat=may_repeat, delay=self._delay, wait=self._wait)

    def _delay(self, state: "tenacity.RetryCallState") -> float:
        """Return the seconds until the next attempt: Retry-After, else a growing delay with jitter."""
        error = _error_of(state)
        if error.status == 429:
            return 0.0  # the budget waits: 429 holds the whole account
        if error.retry_after:
            return error.retry_after
        longest: float = min(self._retry.max_delay, self._retry.first_delay * 2 ** (state.attempt_number - 1))
        return longest * self._random.uniform(0.5, 1.0)

    def _wait(self, state: "tenacity.RetryCallState") -> None:
        """Wait before the next attempt, and tell the user why."""
        self._budget.repeat_next()
        seconds = state.next_action.sleep if state.next_action else 0.0
        if seconds:
            number = state.attempt_number + 1
            why = f"{_error_of(state)}; try {number} of {self._retry.attempts} in {age_text(seconds)}"
            self._budget.pause(seconds, why)


def _error_of(state: "tenacity.RetryCallState") -> UpstreamBusy:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, UpstreamBusy) else UpstreamBusy(str(error))


def _was_not_done(error: BaseException) -> bool:
    """Return whether a write was certainly not done, so that it may be retried."""
    return isinstance(error, NotSent) or (isinstance(error, UpstreamBusy) and error.status == 429)
