"""The background service, which works by schedule. Begin to read in `service.py`."""
