"""What CoinGecko, and the network in front of it, refuse calls with.

`10006` is the refusal as it was seen; `10006-status`, `10006-nested`, `10006-top` and `10006-text` are the same in
each of the four envelopes.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import flask

RETRY_AFTER = 2  # seconds
RATE_MESSAGE = "You've exceeded the Rate Limit. Please visit https://www.coingecko.com/en/api/pricing to subscribe."


class Refusal(flask.Response):
    """An answer that costs no credit, whatever its status."""


# CoinGecko's error_code: the status and the envelope that it was seen with, and the message.
CODES: dict[int, tuple[int, str, str]] = {
    429: (429, "status", RATE_MESSAGE),
    10002: (401, "status", "API Key Missing"),
    10004: (401, "status", "This API key has been deactivated"),
    10005: (401, "status", "This request is limited to PRO API subscribers."),
    10006: (429, "status", "You've reached 10,000 calls limit."),
    10010: (
        400,
        "top",
        "If you are using Pro API key, please change your root URL from api.coingecko.com to pro-api.coingecko.com",
    ),
    10011: (
        400,
        "top",
        "If you are using Demo API key, please change your root URL from pro-api.coingecko.com to api.coingecko.com",
    ),
    10012: (401, "nested", "Your request exceeds the allowed time range."),
    20000: (403, "status", "Blocked: malicious activity detected from your ASN."),
}

# The last one has no code: only its text and the status say what it is.
ENVELOPES: dict[str, Callable[[int, str], dict[str, Any]]] = {
    "status": lambda code, message: {"status": {"error_code": code, "error_message": message}},
    "nested": lambda code, message: {"error": {"status": {"error_code": code, "error_message": message}}},
    "top": lambda code, message: {"error_code": code, "status": {"error_message": message}},
    "text": lambda _, message: {"error": message},
}


def refusal(code: int, *, envelope: str | None = None, message: str | None = None, **headers: str) -> Refusal:
    """Return CoinGecko's own refusal.

    Args:
        code: its `error_code`.
        envelope: one of `ENVELOPES`; None for the one that it was seen in.
        message: other than the usual one.
        headers: more of the answer's.
    """
    status, usual_envelope, usual_message = CODES[code]
    body = ENVELOPES[envelope or usual_envelope](code, message or usual_message)
    return _refusal(json.dumps(body), status, "application/json", **headers)


def _refusing(code: int, envelope: str | None = None) -> Callable[[int], flask.Response]:
    return lambda _: refusal(code, envelope=envelope)


def _refusal(body: str, status: int, mimetype: str, **headers: str) -> Refusal:
    response = Refusal(body, status, mimetype=mimetype)
    response.headers.update(headers)
    return response


def _html(title: str, status: int) -> Refusal:
    page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return _refusal(page, status, "text/html")


def _text(body: str) -> Refusal:
    return _refusal(body, 429, "text/plain")


def _cdn_json(code: int, status: int, title: str) -> Refusal:
    """Return what Cloudflare answers those with who accept JSON."""
    problem = {"title": f"Error {code}: {title}", "status": status, "error_code": code, "cloudflare_error": True}
    return _refusal(json.dumps(problem), status, "application/json")


def _retry_date() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=RETRY_AFTER), usegmt=True)


def _reset_time() -> str:
    return (datetime.now(UTC) + timedelta(seconds=RETRY_AFTER)).strftime("%Y-%m-%d %H:%M:%S +0000")


REFUSALS: dict[str, Callable[[int], flask.Response]] = {
    **{str(code): _refusing(code) for code in CODES},
    **{f"{code}-{envelope}": _refusing(code, envelope) for code in CODES for envelope in ENVELOPES},
    "429-bare": lambda _: refusal(429),
    "429-seconds": lambda _: refusal(429, **{"Retry-After": str(RETRY_AFTER)}),
    "429-date": lambda _: refusal(429, **{"Retry-After": _retry_date()}),
    "429-reset": lambda _: refusal(429, **{"x-ratelimit-reset": _reset_time()}),
    "429-html": lambda _: _html("Attention Required! | Cloudflare", 429),
    "403-html": lambda _: _html("Attention Required! | Cloudflare", 403),
    "404-coin": lambda _: _refusal('{"error": "coin not found"}', 404, "application/json"),
    "404-html": lambda _: _html("404 Not Found", 404),  # what is no CoinGecko, or no path of its API
    "404-path": lambda _: _refusal(
        '{"error": "Incorrect path. Please check https://docs.coingecko.com/"}', 404, "application/json"
    ),
    "500-html": lambda _: _html("Uh Oh! We're sorry, but something went wrong. (500)", 500),
    "throttled": lambda _: _text("Throttled"),
    "1015": lambda _: _text("error code: 1015"),
    "1010-json": lambda _: _cdn_json(1010, 403, "Access denied"),
    "1015-json": lambda _: _cdn_json(1015, 429, "You are being rate limited"),
    "1020-json": lambda _: _cdn_json(1020, 403, "Access denied"),
    "1015-html": lambda _: _html("Access denied | api.coingecko.com used Cloudflare to restrict access", 429),
}
