"""An offline copy of Bitbucket's users, repositories, branches and tags in one SQLite file.

Data flows one way: ``upstream -> sync -> store -> search and serve``. Read the rooms in that order:
`mirror.upstream` asks Bitbucket, `mirror.sync.crawl` decides what to ask, `mirror.store` is the only writer
of the file, `mirror.search` and `mirror.serve` read it and never ask anybody.
"""

__version__ = "0.1.0"
