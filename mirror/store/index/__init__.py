"""Keeping the name index: triggers note what changes, and it is settled now and then. See docs/search.md."""
