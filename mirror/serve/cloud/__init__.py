"""The reading side of Bitbucket's API 2.0, answered from the mirror; writes pass through as in API 1.0.

`edge` meets Datasette, `routes` has one function for each address, `listings` reads pages of them, `bbql` and
`conditions` turn `q` into SQL, `shapes` turns rows into Bitbucket's objects. See docs/api-2.0.md.
"""
