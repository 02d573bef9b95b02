"""The background service: it does work by schedule. Begin to read in `service.py`."""
