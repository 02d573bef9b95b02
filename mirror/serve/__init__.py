"""Serving: a Datasette plugin with three APIs, pages, webhooks, permissions and stored queries.

`plugin` lists the hooks and routes. A request passes through `middleware`, then through `api_edge` with
`api1`, `api2` or `datacenter`, through `pages/view`, or `webhooks`. These read requests with `exchange` and
`auth`.
Nothing here contacts an upstream: every answer comes from the file, so serving works offline.
"""

from mirror.serve import units

units.postpone()  # before any file of this package imports Datasette
