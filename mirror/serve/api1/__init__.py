"""Bitbucket's API 1.0: `edge` has its addresses and formats, `routes` the answers, `shapes` the JSON.

See docs/api-1.0.md.
"""
