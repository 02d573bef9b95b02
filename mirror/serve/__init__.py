"""Serving: a Datasette plugin with API 1.0, API 2.0, pages, webhooks, permissions and stored queries.

`plugin` lists the hooks and routes. A request passes through `middleware`, then through `api_edge` with
`api1` or `api2`, `pages/view`, `webhooks` or `monitoring`. These read requests with `exchange` and `auth`.
Nothing here contacts an upstream: every answer comes from the file, so serving works offline.
"""
