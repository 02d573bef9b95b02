"""Bitbucket's API 1.0: `edge` has its addresses and formats, `routes` the answers, `shapes` the JSON.

`unmirrored` has what the mirror does not hold. See docs/api-1.0.md.
"""
