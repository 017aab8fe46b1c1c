"""The Flask application."""

import flask
from werkzeug.middleware.proxy_fix import ProxyFix

from receiver.clients import identify_clients
from receiver.coins import register_coin_routes
from receiver.connections import Connections
from receiver.documentation import register_documentation_routes
from receiver.operations import register_operation_routes
from receiver.problems import register_problem_handlers
from receiver.settings import ReceiverSettings, read_settings
from receiver.staging import Staging
from receiver.submissions import register_submission_routes
from receiver.telemetry import observe_requests


def create_app(settings: ReceiverSettings | None = None) -> flask.Flask:
    """Build the application.

    Args:
        settings: read from the environment where none are given.
    """
    settings = settings or read_settings()
    app = flask.Flask("receiver", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.receiver_max_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.merge_slashes = False
    if settings.receiver_trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.receiver_trusted_proxies)  # type: ignore[method-assign]
    connections = Connections(settings.database_url)
    staging = Staging(connections)
    register_problem_handlers(app)
    observe_requests(app)
    open_route = identify_clients(app, settings)
    register_submission_routes(app, staging, settings)
    register_coin_routes(app, staging)
    register_operation_routes(open_route, staging, connections)
    register_documentation_routes(app, open_route)
    return app
