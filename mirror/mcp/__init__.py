"""Read-only tools for editors and assistants, over the Model Context Protocol.

`tools` answers each question from one snapshot of the file, `sql` runs a statement under the guard of the
served SQL, `server` speaks the protocol. Nothing here asks an upstream, so no tool spends a request.
"""
