"""Data Center's own REST API 1.0, the reading side, for a mirror of any upstream.

`edge` has its addresses, requests, pages and errors, `routes` the answers. `shapes` makes the objects and
knows where the upstream has them.
"""
