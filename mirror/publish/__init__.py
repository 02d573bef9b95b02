"""A public-only copy of the mirror, to host anywhere. It depends on the public rows alone.

`selection.py` names every column that may be copied, copies the rows, and finds what is private;
`snapshot.py` makes the file, and those beside it.
"""
