"""The reads behind the pages: bounded statements, each with what the visitor may see inside it."""
