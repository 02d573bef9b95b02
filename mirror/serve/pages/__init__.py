"""Pages for people: rendered here, usable without a script, asking nothing of any other address.

`routes` lists the addresses; `visit` is the edge to Datasette (who asks, what they may see, the headers of
an answer). One module makes each page (`home`, `finding`, `repository`, `owner`, `history`, `crawl`), with
its reads beside it under `reads`. `links` knows all addresses, `wording` how things are said, `charts` draws.
"""
