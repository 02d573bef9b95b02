"""The addresses of the OpenAPI documents."""

from typing import TYPE_CHECKING

import msgspec
from datasette.utils.asgi import Request, Response

from mirror.serve.api1.routes import API as API_1
from mirror.serve.api2.routes import API as API_2
from mirror.serve.api_edge import Api
from mirror.serve.datacenter.routes import API as DATA_CENTER
from mirror.serve.exchange import SAFETY, ApiError, address_of
from mirror.serve.openapi import api1, api2, datacenter
from mirror.serve.openapi.document import openapi_document
from mirror.serve.openapi.schemas import Description

if TYPE_CHECKING:
    from datasette.app import Datasette

PATTERN = r"^/-/openapi/(?P<name>1\.0|2\.0|datacenter)\.json$"

DOCUMENTED: dict[str, tuple[Api, Description]] = {
    "1.0": (API_1, api1.DESCRIPTION),
    "2.0": (API_2, api2.DESCRIPTION),
    "datacenter": (DATA_CENTER, datacenter.DESCRIPTION),
}
"""The APIs that have a document, by its name in the address."""


async def openapi(datasette: "Datasette", request: Request) -> Response:
    """Answer with the document of an API; strangers may read it, as it contains no data of the file."""
    api, described = DOCUMENTED[request.url_vars["name"]]
    try:
        body, status = openapi_document(api, described, address_of(datasette, request)), 200
    except ApiError as error:
        body, status = error.body, error.status
    headers = {**SAFETY, "Access-Control-Allow-Origin": "*"}
    return Response(
        msgspec.json.encode(body), status=status, headers=headers, content_type="application/json"
    )
