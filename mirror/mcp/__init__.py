"""Read-only tools for editors and assistants, over the Model Context Protocol.

`tools` answers each question from one snapshot of the file, `sql` runs a statement with the restrictions of
the served SQL, `server` implements the protocol. No tool sends a request to an upstream.
"""
