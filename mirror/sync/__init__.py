"""The crawl: decides what to request next, and saves the answers. Begin to read in `crawl.py`."""
