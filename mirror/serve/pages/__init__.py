"""HTML pages: rendered on the server, usable without scripts, without resources from other servers.

`view` has what they share: the caller, one snapshot, safe headers. `templates` compiles templates and formats
values in them. `datasette` changes Datasette's own pages. `serve/urls.py` makes all addresses.
"""
