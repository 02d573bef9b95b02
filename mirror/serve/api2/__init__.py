"""The reading side of Bitbucket's API 2.0, answered from the mirror; writes pass through as in API 1.0.

`edge` meets Datasette; `routes` and `people` have one function for each address, `answering` what they share;
`catalogue` says what can be listed, `listings` reads a page of it; `bbql` and `conditions` turn `q` into SQL;
`shapes` and `account_shapes` turn rows into Bitbucket's objects. See docs/api-2.0.md.
"""
