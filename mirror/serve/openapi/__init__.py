"""OpenAPI documents of the served APIs, made from their route tables.

`document.py` makes a document; `api1.py`, `api2.py` and `datacenter.py` say what each route takes and
answers.
"""
