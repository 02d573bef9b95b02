"""The background job: syncs every upstream by its schedule. `python scheduler.py [mirror.toml]`."""

import sys

from mirror.cli import main

if __name__ == "__main__":
    given = sys.argv[1:]
    names_config = bool(given) and not given[0].startswith("-")  # else an option, such as --help
    sys.argv[1:] = ["--config", given[0], "schedule", *given[1:]] if names_config else ["schedule", *given]
    main()
