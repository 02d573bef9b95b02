"""SIGHUP: a service reads its configuration again, and keeps the old one if the new one is faulty."""

import os
import queue
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

from mirror.config import BUILT_IN, Config
from mirror.errors import ConfigError
from mirror.report import Reporter


class Current:
    """The configuration of a service that has several processes, or syncs nothing.

    :param reread: reads it again.
    :param check: raises ConfigError for a new one that may not replace the present one, its second argument.
    """

    def __init__(
        self, config: Config, reread: Callable[[], Config], check: Callable[[Config, Config], object]
    ) -> None:
        self.config, self.reread, self._check = config, reread, check

    def renew(self) -> Config:
        """Replace it by what is read now, and return that; raises ConfigError for a faulty one."""
        new = self.reread()
        self._check(new, self.config)
        self.config = new
        return new

    def renew_and_tell(self, report: Reporter) -> None:
        """Replace it and report that; report a faulty one, and keep the old one."""
        before = self.config
        try:
            self.renew()
        except ConfigError as error:
            tell_refusal(report, error)
        else:
            tell_renewal(report, self.config, before)


def tell_refusal(report: Reporter, error: ConfigError) -> None:
    """Report that a new configuration is faulty."""
    report.fault(f"the new configuration is refused, the old one stays in force: {error}")


def tell_renewal(report: Reporter, config: Config, before: Config) -> None:
    """Report that a configuration has replaced another one."""
    later = "; `serve` only by a restart" if config.serve != before.serve else ""
    report.note(f"the configuration was read again{later}")


def check_same_mirror(config: Config, before: Config) -> None:
    """Raise ConfigError for a configuration of another file, or of the built-in sandbox by default."""
    if os.path.realpath(config.database) != os.path.realpath(before.database):
        raise ConfigError(
            f"`database` is {config.database} now, but was {before.database}; that needs a restart"
        )
    if config.upstreams == BUILT_IN.upstreams != before.upstreams:
        raise ConfigError("it has no upstream")


def on_hangup(obey: Callable[[], None]) -> None:
    """Call a function in a thread on each SIGHUP; its ConfigError is ignored: it is reported elsewhere."""
    asked = queue.SimpleQueue[int]()
    signal.signal(signal.SIGHUP, lambda number, _: asked.put(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def wait() -> None:
        while asked.get():
            with suppress(ConfigError):
                obey()

    threading.Thread(target=wait, daemon=True, name="reread").start()
