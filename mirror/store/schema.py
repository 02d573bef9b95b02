"""What tells a mirror's file from others, and its version; kept apart, since readers need no migrations."""

APPLICATION_ID = 0x4D495252
"""`PRAGMA application_id`: "MIRR", so that another program's file is never mistaken for a mirror."""

MIGRATIONS = "bitbucket-mirror"
"""The name of the list of migrations in a file."""

VERSION = 26
"""How many migrations there are: `PRAGMA user_version` of an up-to-date file."""
