"""Serving: a Datasette plugin with API 1.0, API 2.0, pages, webhooks, permissions and stored queries.

`plugin` lists the hooks and routes. A request goes through `middleware`, then through `api_edge` with `api1`
or `api2`, `pages/view`, `webhooks` or `monitoring`. What they read of a request is in `exchange` and `auth`.
Nothing here asks an upstream, so every answer comes from the file, also offline.
"""
