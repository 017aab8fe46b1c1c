"""The stand-in's HTTP server: one that keeps connections open and answers in time."""

import time
from typing import TYPE_CHECKING

import flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.test import run_wsgi_app

from stack.standin import control, routes
from stack.standin.routes import API_ROOT, ENVIRON_ARRIVED
from stack.standin.state import Call, StandIn

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["API_ROOT", "Call", "StandIn", "create_app", "create_server"]

BODILESS = ("1", "204", "304")  # what a status begins with that has no body, not even an empty one in chunks


def create_app(standin: StandIn) -> flask.Flask:
    """Build the application around the state."""
    app = flask.Flask("standin", static_folder=None)
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_blueprint(routes.blueprint(standin))
    app.register_blueprint(control.blueprint(standin))
    return app


class _Handler(WSGIRequestHandler):
    """Keeps connections open, as CoinGecko does, where Werkzeug closes each; and leaves the terminal alone."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def parse_request(self) -> bool:
        """Note when a request arrived: what Python does with it is part of the latency that was asked for."""
        self._arrived = time.monotonic()
        return super().parse_request()

    def make_environ(self) -> "WSGIEnvironment":
        """Return the environ, with that moment in it."""
        return {**super().make_environ(), ENVIRON_ARRIVED: self._arrived}

    def run_wsgi(self) -> None:
        """Answer a request, which has no body."""
        pieces, status, headers = run_wsgi_app(self.server.app, self.make_environ())
        is_chunked = "Content-Length" not in headers and not status.startswith(BODILESS)
        if is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        self.send_response(int(status.split()[0]))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        for piece in filter(None, pieces):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
        if is_chunked:
            self.wfile.write(b"0\r\n\r\n")
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # there is a body after all, which nobody has read

    def log_request(self, *_: object) -> None:
        """Say nothing: `StandIn.calls` has every request."""


def create_server(standin: StandIn, *, host: str = "127.0.0.1", port: int = 0) -> BaseWSGIServer:
    """Bind a threaded server; `serve_forever` runs it, `shutdown` ends it, port 0 takes a free one.

    A port that is taken ends the process with a line that says so.
    """
    return make_server(host, port, create_app(standin), threaded=True, request_handler=_Handler)
