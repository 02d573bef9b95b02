"""The public part of a mirror as static files, for any web host, searched in the visitor's browser.

`build.py` makes the site from the rows that `publish` lets out, `addresses.py` names its files, `pages.py`
and `texts.py` fill them, `sources.py` tells which pages need not be rendered again, `shards.py` is what the
browser searches, `folder.py` writes only what changed.
"""

from mirror.site.build import Made, SiteOptions, make_site

__all__ = ["Made", "SiteOptions", "make_site"]
