"""An offline copy of Bitbucket's users, repositories, branches and tags in one SQLite file.

Data flows one way: ``upstream -> sync -> store -> queries and search -> serve and cli``. `mirror.upstream`
asks Bitbucket, `mirror.sync.crawl` decides what to ask, `mirror.store` is the only writer of the file; the
others read it and send no request. `docs/development.md` describes every part.
"""

__version__ = "0.1.0"
