"""Submissions: `POST /coins` takes one, `GET /submissions/<id>` tells what became of it."""

import functools
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import flask
import psycopg
from flask.globals import app_ctx, request_ctx

from receiver.clients import client
from receiver.database import database
from receiver.database.staging import Submission
from receiver.parsing import parse_coins, read_media_type, refuse_encoded
from receiver.problems import ProblemError
from receiver.routes.numbers import read_bigint
from receiver.telemetry import count_ids
from receiver.waiting import in_thread

Answer = tuple[str, HTTPStatus, dict[str, str]]  # body, status and headers

LARGE_BODY = 32_768  # bytes, from which reading the ids would hold up the event loop
MAX_KEY_LENGTH = 255  # characters
MAX_CONTENT_TYPE_LENGTH = 255  # characters kept

_encode = json.JSONEncoder(separators=(",", ":")).encode  # 3 % faster than jsonify
_reading = ThreadPoolExecutor(1, thread_name_prefix="reading")  # one, to leave the interpreter to small requests

blueprint = flask.Blueprint("submissions", __name__)


@blueprint.post("/coins")
def post_coins() -> Answer:
    """Stage the ids of a body."""
    request = request_ctx.request  # itself: through flask.request each attribute would be looked up anew
    refuse_encoded(
        content_encoding=request.headers.get("Content-Encoding", ""),
        transfer_encoding=request.headers.get("Transfer-Encoding", ""),
    )
    mimetype, parameters = read_media_type(request.headers.get("Content-Type", ""))
    body = request.get_data(cache=False)
    digest = hashlib.sha256(b"%s\0%s\0%s" % (mimetype.encode(), request.query_string, body)).digest()
    key, strict = _idempotency_key(), _is_strict()
    if earlier := _find_earlier(key):
        return _replay(earlier, digest)
    read = functools.partial(
        parse_coins, body, mimetype=mimetype, parameters=parameters, max_coins=app_ctx.app.config["MAX_COINS"]
    )
    coins = in_thread(read, pool=_reading) if len(body) > LARGE_BODY else read()
    rejected = [vars(coin) for coin in coins.rejected]
    counts = {"accepted": len(coins.accepted), "duplicates": coins.duplicates, "rejected": len(rejected)}
    app_ctx.g.ids = counts
    if not coins.accepted:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "There is no coin id in the body.", rejected=rejected)
    if strict and rejected:
        detail = "With strict=1 every id must be good; nothing was staged."
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, rejected=rejected)
    submission = Submission(
        client=client(),
        content_type=(request.content_type or "")[:MAX_CONTENT_TYPE_LENGTH],
        idempotency_key=key,
        body_sha256=digest,
        coins=coins,
    )
    try:
        number = database().submit(submission)
    except psycopg.errors.UniqueViolation:
        # Another request with the same key was committed since this one looked for it.
        earlier = _find_earlier(key)
        if earlier is None:
            raise
        return _replay(earlier, digest)
    count_ids(counts)
    return _answer({"submission": number, **counts, "rejected": rejected})


@blueprint.get("/submissions/<number>")
def get_submission(number: str) -> dict[str, Any]:
    """Answer with each id's outcome."""
    submission = read_bigint(number)
    found = None if submission is None else database().staging.read_submission(submission)
    if found is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, "There is no such submission.")
    outcomes = [coin["outcome"] for coin in found["coins"]]
    return {**found, "counts": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}}


def _find_earlier(key: str | None) -> dict[str, Any] | None:
    """Return the answer that this client got with an idempotency key, and the digest of what it sent."""
    return None if key is None else database().staging.find_submission(client=client(), idempotency_key=key)


def _replay(earlier: dict[str, Any], digest: bytes) -> Answer:
    if bytes(earlier.pop("body_sha256")) != digest:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "This Idempotency-Key was used with another body, media type or query; use a new key for a new request.",
        )
    app_ctx.g.ids = {
        "accepted": earlier["accepted"],
        "duplicates": earlier["duplicates"],
        "rejected": len(earlier["rejected"]),
    }
    return _answer(earlier, **{"Idempotent-Replayed": "true"})


def _answer(submission: dict[str, Any], **headers: str) -> Answer:
    headers |= {"Content-Type": "application/json", "Location": f"/submissions/{submission['submission']}"}
    return _encode({"message": "accepted", **submission}) + "\n", HTTPStatus.ACCEPTED, headers


def _idempotency_key() -> str | None:
    key = flask.request.headers.get("Idempotency-Key")
    if key is not None and not (0 < len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable()):
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"An Idempotency-Key has 1 to {MAX_KEY_LENGTH} printable ASCII characters.",
        )
    return key


def _is_strict() -> bool:
    if not flask.request.query_string:
        return False
    strict = flask.request.args.get("strict", "0")
    if strict not in {"0", "1"}:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "strict is 1 or 0.")
    return strict == "1"
