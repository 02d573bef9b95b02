"""HTML pages: rendered on the server, usable without scripts, without resources from other servers.

`view` has what they share: the caller, one snapshot, safe headers. Each page has a module of its own. `urls`
makes all addresses, `filters` formats values in templates, `charts` draws, `templates` compiles, `datasette`
changes Datasette's own pages.
"""
