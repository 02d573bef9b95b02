"""The background service: work by schedule, and its account. Begins in `service.py`."""
