"""Compiles the home page when it is imported, for all servers that are forked from this process."""

import asyncio

from datasette.app import Datasette

from mirror.serve.pages.templates import prepare_first_page

_datasette = Datasette()
asyncio.run(_datasette.invoke_startup())
prepare_first_page(_datasette.jinja_env)
