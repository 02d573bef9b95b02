"""Data Center's own REST API 1.0, the reading side, from any mirror.

`edge` has its addresses and requests, `routes` the answers, `unmirrored` what the mirror does not hold.
`paging` reads lists, `shapes` makes the objects and knows where the upstream has them.
"""
