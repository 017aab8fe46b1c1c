"""The OpenAPI document, and a page to read it on that needs no network."""

from pathlib import Path
from typing import Any

import flask
import yaml

OPENAPI = Path(__file__).parents[1] / "openapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(OPENAPI.read_text())

blueprint = flask.Blueprint("documentation", __name__)


@blueprint.get("/openapi.json")
def get_openapi() -> dict[str, Any]:
    """Answer with the document."""
    return DOCUMENT


@blueprint.get("/docs")
def get_docs() -> str:
    """Answer with the page."""
    return flask.render_template("docs.html", **DOCUMENT)


@blueprint.app_template_filter("resolve")
def _resolve(part: dict[str, Any]) -> dict[str, Any]:
    """Return a part of the document, or what it refers to."""
    if "$ref" not in part:
        return part
    document = DOCUMENT
    for name in part["$ref"].removeprefix("#/").split("/"):
        document = document[name]
    return document
