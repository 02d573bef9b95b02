"""`mirror init`: a configuration to start from."""

import os
from pathlib import Path

import click

from mirror.config import DEFAULT_FILE
from mirror.errors import ConfigError

TEMPLATE = """\
# What bitbucket-mirror mirrors, how often, and to whom it answers. Durations are written 30s, 15m, 1h, 7d.
# Lines that are commented out show the default. Paths are relative to the folder of this file.

database = "data/mirror.db"
# file_mode = "0600"          # of new files: "0640" or "0660" lets the group of the file read or write them
# timezone = ""               # of the schedules, like "Europe/Amsterdam"; "": this machine's own

[[upstream]]
name = "cloud"                # a short name of your own
kind = "cloud"                # cloud | datacenter | legacy | sandbox
# url = "https://api.bitbucket.org/2.0"
workspaces = ["atlassian"]    # as in bitbucket.org/SLUG; remove the line for your own (needs a credential)
# Where the secret is, never the secret itself: "env:NAME" or "file:PATH". It holds one of
#   you@example.com:TOKEN     an API token (scopes: read:repository, read:workspace, read:user)
#   TOKEN                     an access token of a repository, project or workspace
#   oauth:KEY:SECRET          an OAuth consumer
# Without a credential, Bitbucket answers 60 requests an hour, and shows public repositories only.
# credential = "env:BITBUCKET_TOKEN"
# Bitbucket can say at once what has changed: give its webhook the address .../-/webhook/NAME and a secret.
# webhook_secret = "env:BITBUCKET_WEBHOOK_SECRET"
# refs = "api"                # branches and tags: api | git (costs no API requests) | none
# requests_per_hour = 950     # default: what Bitbucket allows this credential, less a margin
# concurrency = 4
# timeout = "30s"
# retry = { attempts = 6, first_delay = "1s", max_delay = "10m" }
# overlap = "1d"              # how far an incremental run looks back
# sweep_every = "7d"          # a full listing, that finds what is gone
# refs_every = "30d"          # branches and tags are asked anew after this, changed or not
# absence_brake = 0.10        # the share of a workspace that may go without asking you
# accept_missing = []         # repositories ("owner/slug") whose refusal, 403, 404 or 451, is no failure
# schedule = "*/15 * * * *"   # five cron fields, or an interval like "15m"; "": never by itself
# sweep_schedule = ""         # full listings at a time of your own; "": as sweep_every makes them due
# refs_schedule = ""          # branches and tags apart from the listings; "": with each sync
# retry_schedule = ""         # what failed, asked again between syncs; "": with each sync
# verify_schedule = "30 4 * * sun"
# verify_sample = 20          # how many repositories a scheduled verify compares
# jitter = "30s"              # work begins up to so much later, not on the minute with everybody else's
# watch = 0.3                 # the share of the requests that goes where changes are likely; 0: none
# watch_shortest = "2m"       # how often the busiest one is looked at, at most
# stale_after = "2d"          # /-/health tells of a last complete sync that is older

[serve]
# host = "127.0.0.1"
# port = 8001
# writes = false              # let tokens of scope `write` create, update, delete and fork upstream
# trust_basic_user = false    # Linux, loopback: believe the Basic user name of programs of this system user
# public_url = ""             # where a proxy publishes the mirror: https://HOST or https://HOST/PATH

# Who is told how syncs went, as many as you like; each has one of ping, url and command.
# [[alert]]
#   ping = "https://hc-ping.com/UUID"        on success; on failure and brake, /fail behind it
#   url = "env:CHAT_WEBHOOK"                 JSON on failure, recovery and brake
#   command = ["/usr/local/bin/page-me"]     the same JSON as its standard input
#   on = ["success", "failure", "recovery", "brake"]

[log]
# format = "console"          # console | json
# level = "info"              # debug | info | warning | error
"""


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=DEFAULT_FILE)
def init(path: Path) -> None:
    """Write a commented mirror.toml to start from; never overwrites.

    \b
    Example:
        mirror init && $EDITOR mirror.toml && mirror sync
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        raise ConfigError(f"{path} is there already; remove it first, or name another file") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    click.echo(f"{path} written; name your workspaces in it, then: mirror sync")
