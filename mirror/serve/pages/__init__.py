"""Pages for people: rendered here, usable without a script, asking nothing of any other address.

`view` is what they share: who asks, one snapshot, safe headers. One module makes each page. `urls` knows all
addresses, `filters` formats values in templates, `charts` draws, `datasette` adapts Datasette's own pages.
"""
