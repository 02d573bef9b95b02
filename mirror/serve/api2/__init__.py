"""Bitbucket's API 2.0: `edge` has its addresses and requests, `routes` the answers, `shapes` the JSON.

`listings` says what can be listed, `paging` reads a page of it. `query_language` turns `q` into SQL. `writes`
has what passes to the upstream. See docs/api-2.0.md.
"""
