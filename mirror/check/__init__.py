"""Check whether a mirror will work on this machine; each check has its result and a remedy.

Nothing is changed. Each upstream gets a few requests, which count in the ledger. No check waits for budget.
"""

from collections.abc import Iterator

from mirror.check.machine import Check, check_machine, check_schedules, exit_code, faulty_configuration, good
from mirror.check.upstream import check_upstream, scope_words
from mirror.config import Config
from mirror.upstream.transport import Transport

__all__ = ["Check", "exit_code", "faulty_configuration", "run_checks", "scope_words"]


def run_checks(config: Config, *, where: str, transport: Transport | None = None) -> Iterator[Check]:
    """Run all checks.

    :param where: the source of the configuration, as shown to people.
    :param transport: replaces the network, in tests.
    """
    names = ", ".join(f"{one.name} ({one.kind})" for one in config.upstreams)
    yield good("configuration", f"{where}: {names}")
    yield check_schedules(config)
    for upstream in config.upstreams:
        yield from check_upstream(config, upstream, transport)
    yield from check_machine(config)
