"""The background job: syncs every upstream by its schedule. `python scheduler.py [mirror.toml]`."""

import sys

from mirror.cli import main

if __name__ == "__main__":
    config = ["--config", sys.argv[1]] if sys.argv[1:] else []
    sys.argv[1:] = [*config, "schedule"]
    main()
