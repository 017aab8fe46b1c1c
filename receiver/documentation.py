"""Routes of the OpenAPI document, and of a page to read it on that needs no network."""

from pathlib import Path
from typing import Any

import flask
import yaml

from receiver.clients import OpenRoute

OPENAPI = Path(__file__).with_name("openapi.yaml")


def register_documentation_routes(app: flask.Flask, get: OpenRoute) -> None:
    """Add `/openapi.json` and `/docs`."""
    document: dict[str, Any] = yaml.safe_load(OPENAPI.read_text())
    app.jinja_env.filters["resolve"] = lambda part: _resolve(document, part)

    @get("/openapi.json")
    def get_openapi() -> dict[str, Any]:
        return document

    @get("/docs")
    def get_docs() -> str:
        return flask.render_template("docs.html", **document)


def _resolve(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return a part of the document, or what it refers to."""
    if "$ref" not in part:
        return part
    for name in part["$ref"].removeprefix("#/").split("/"):
        document = document[name]
    return document
