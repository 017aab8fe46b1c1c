"""The OpenAPI document, and Swagger UI to read and try it out, which needs no network."""

from pathlib import Path
from typing import Any

import flask
import yaml
from flask_swagger_ui import get_swaggerui_blueprint  # type: ignore[import-untyped]

OPENAPI = Path(__file__).parents[1] / "openapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(OPENAPI.read_text())

blueprint = flask.Blueprint("documentation", __name__)
swagger_ui = get_swaggerui_blueprint(
    "/docs",
    "/openapi.json",
    config={
        "app_name": DOCUMENT["info"]["title"],
        "layout": "BaseLayout",
        "tryItOutEnabled": True,
        "validatorUrl": None,  # which would be a site that is asked over the network
    },
)


@blueprint.get("/openapi.json")
def get_openapi() -> dict[str, Any]:
    """Answer with the document."""
    return DOCUMENT


@blueprint.get("/docs")
def get_docs() -> str:
    """Answer with Swagger UI's page; its other files are below."""
    return str(flask.current_app.view_functions[f"{swagger_ui.name}.show"]())
