"""Files that other users of the machine can open against `file_mode`: the mirror's own, and secrets."""

import logging
import stat
from collections.abc import Iterator
from pathlib import Path

from mirror.config import Config

OTHERS = 0o077

log = logging.getLogger(__name__)


def warn_of_open_files(config: Config) -> None:
    """Log a line for each file that is open to others."""
    for line in open_files(config):
        log.warning(line)


def open_files(config: Config) -> Iterator[str]:
    """Yield a sentence on each file that others may read or write, with the remedy."""
    database = Path(config.database)
    for path in (database, database.with_name(f"{database.name}-wal")):
        if mode := _open_mode(path, config):
            yield (
                f"{path} is open to other users (mode {mode:04o}): chmod {config.file_mode} {path},"
                " or say so by file_mode"
            )
    for path in dict.fromkeys(_secrets(config)):
        if mode := _open_mode(path, config):
            yield f"{path} holds a secret and is open to other users (mode {mode:04o}): chmod 600 {path}"


def _open_mode(path: Path, config: Config) -> int:
    """Return the mode of a file that is more open than configured, else 0; also where it cannot be told.

    Folders and devices are named by mistake; to change their modes would be another one.
    """
    try:
        state = path.stat().st_mode
    except (OSError, ValueError):
        return 0
    mode = stat.S_IMODE(state) & 0o777 if stat.S_ISREG(state) else 0
    return mode if mode & OTHERS & ~config.mode else 0


def _secrets(config: Config) -> Iterator[Path]:
    sources = [
        *(source for one in config.upstreams for source in (one.credential, one.webhook_secret)),
        *(source for one in config.alerts for source in (one.ping, one.url)),
    ]
    yield from (
        Path(source.removeprefix("file:")) for source in sources if source and source.startswith("file:")
    )
