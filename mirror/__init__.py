"""An offline copy of Bitbucket's users, repositories, branches and tags in one SQLite file.

Data flows one way: ``upstream -> sync -> store -> queries and search -> serve and cli``. `mirror.upstream`
asks Bitbucket, `mirror.sync.crawl` decides what to ask, `mirror.store` is the only writer of the file; the
others read it and send no request. `docs/development.md` describes every part.
"""

import os

# The search uses numpy, but no linear algebra, whose library starts a thread for each core and keeps it busy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
