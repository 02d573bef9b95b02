"""Bitbucket as seen from here: what can be asked of it, and how often."""
