"""Data Center's own REST API 1.0, the reading side, from any mirror.

`edge` says what makes it, `routes` what it answers, `unmirrored` what it does not. `paging` reads lists,
`shapes` makes the objects, and `addresses` knows where the upstream has them.
"""
