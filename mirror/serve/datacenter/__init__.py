"""Data Center's own REST API 1.0, the reading side, for a mirror of any upstream.

`edge` has its addresses, requests and pages, `routes` the answers, `unmirrored` what the mirror does not
hold. `shapes` makes the objects and knows where the upstream has them.
"""
