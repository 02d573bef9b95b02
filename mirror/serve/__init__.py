"""The mirror answering: a Datasette plugin with permissions, stored queries and Bitbucket's API 1.0.

Nothing here asks an upstream, so every answer comes from the file, also on a train.
"""
