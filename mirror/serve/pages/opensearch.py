"""The search for the address bar of browsers: OpenSearch's description document, and suggestions."""

from xml.sax.saxutils import quoteattr

import msgspec
from datasette.utils.asgi import Response

from mirror.serve.middleware import PAGE
from mirror.serve.pages.search import OPTIONS, find, request_of
from mirror.serve.pages.urls import assets
from mirror.serve.pages.view import Visit


async def description(visit: Visit) -> Response:
    """GET /-/search.xml: how a browser asks this search, with the address that this server is known by."""
    page, suggested, icon = (
        quoteattr(f"{visit.origin}{path}{query}")
        for path, query in (
            (visit.links.search(), "?q={searchTerms}"),
            (visit.links.search("/suggestions"), "?q={searchTerms}"),
            (visit.links.path(assets()["mirror.svg"].address), ""),
        )
    )
    body = f"""<?xml version="1.0" encoding="UTF-8"?>
<OpenSearchDescription xmlns="http://a9.com/-/spec/opensearch/1.1/">
<ShortName>Bitbucket mirror</ShortName>
<Description>Repositories of the Bitbucket mirror, by part of their name</Description>
<InputEncoding>UTF-8</InputEncoding>
<Image width="16" height="16" type="image/svg+xml">{icon[1:-1]}</Image>
<Url type="text/html" method="get" template={page}/>
<Url type="application/x-suggestions+json" method="get" template={suggested}/>
</OpenSearchDescription>
"""
    return Response(
        body, headers=dict(PAGE), content_type="application/opensearchdescription+xml; charset=utf-8"
    )


async def suggestions(visit: Visit) -> Response:
    """GET /-/search/suggestions: names for what is typed, as OpenSearch has it."""
    asked = msgspec.structs.replace(request_of(visit), size=OPTIONS, page=1)
    rows = (await visit.read(lambda connection: find(connection, visit.caller, asked))).repositories
    body = [
        asked.q,
        [row.full_name for row in rows],
        [" ".join((row.description or "").split()) for row in rows],
        [visit.origin + visit.links.repository(row.full_name, row.id) for row in rows],
    ]
    return Response(
        msgspec.json.encode(body),
        headers=dict(PAGE),
        content_type="application/x-suggestions+json; charset=utf-8",
    )
