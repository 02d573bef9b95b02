"""Bodies: one answer as JSON, JSONP, YAML or XML, none of which a browser runs or renders as a page.

`format` and `callback` are Bitbucket's own parameters of API 1.0; its XML was that of django-piston, the
library it was built on: ``<response>`` around ``<resource>`` items.
"""

import re
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import yaml

JSON_TYPE = "application/json; charset=utf-8"
SAFETY = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
LONGEST_CALLBACK = 100

_CALLBACK = re.compile(r"[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*", re.ASCII)
_ELEMENT = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ENCODER = msgspec.json.Encoder()
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def is_callback(name: str) -> bool:
    """Tell whether a JSONP callback is a plain (dotted) name, which cannot carry code."""
    return len(name) <= LONGEST_CALLBACK and _CALLBACK.fullmatch(name) is not None


def render(data: Any, form: str, callback: str | None) -> tuple[bytes, str]:
    """Return the body and its content type; an unknown `form` is JSON, as unknown parameters are ignored."""
    if callback is not None:
        text = _ENCODER.encode(data).replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
        # The comment keeps the body from being taken for another kind of file (Rosetta Flash).
        return b"/**/" + callback.encode() + b"(" + text + b");", "application/javascript; charset=utf-8"
    if form == "yaml":
        lines = yaml.dump(data, Dumper=_DUMPER, allow_unicode=True, sort_keys=False, default_flow_style=False)
        return lines.encode(), "application/yaml; charset=utf-8"
    if form == "xml":
        return _xml(data), "application/xml; charset=utf-8"
    return _ENCODER.encode(data), JSON_TYPE


def _xml(data: Any) -> bytes:
    root = ET.Element("response")
    _fill(root, data)
    body: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return body


def _fill(element: ET.Element, data: Any) -> None:
    """Put a value into an element; a key that is no element name stands in an attribute."""
    if isinstance(data, dict):
        for key, value in data.items():
            if _ELEMENT.fullmatch(key):
                child = ET.SubElement(element, key)
            else:
                child = ET.SubElement(element, "resource", name=_NOT_XML.sub("\ufffd", key))
            _fill(child, value)
    elif isinstance(data, list):
        for value in data:
            _fill(ET.SubElement(element, "resource"), value)
    elif data is not None:
        element.text = _NOT_XML.sub("\ufffd", str(data))
