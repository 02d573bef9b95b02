"""The public part of a mirror as static files for any web host, searched in the visitor's browser.

`build.py` makes the site from the rows that `publish` selects, and finds the pages that need not be rendered
again; `pages.py` makes its pages and its feed, `shards.py` the files for the search in the browser,
`folder.py` names all files and writes only what changed.
"""
