"""The final table: `GET /coins/<id>`, `GET /coins?id=` and `GET /coins?exchange=&after=&limit=`."""

from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import flask

from receiver.database import database
from receiver.problems import ProblemError
from receiver.routes.numbers import read_bigint

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000  # coins a page

blueprint = flask.Blueprint("coins", __name__)


@blueprint.get("/coins/<path:coin_id>")
def get_coin(coin_id: str) -> dict[str, Any]:
    """Answer with one coin."""
    found = database().staging.find_coin(coin_id)
    if found is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, "There is no coin of that id; an id that is new takes a while.")
    return found


@blueprint.get("/coins")
def list_coins() -> dict[str, Any]:
    """Answer with one coin, or a page of them."""
    coin_id, exchange = flask.request.args.get("id"), flask.request.args.get("exchange")
    after, limit = _after(), _limit()
    if coin_id is not None:
        return get_coin(coin_id)
    coins = database().staging.list_coins(exchange=exchange, after=after, limit=limit)
    return {"coins": coins, "next": _next_page(coins, exchange=exchange, limit=limit)}


def _next_page(coins: list[dict[str, Any]], *, exchange: str | None, limit: int) -> str | None:
    if len(coins) < limit:
        return None
    parameters = {"exchange": exchange, "after": coins[-1]["task_run"], "limit": limit}
    return "/coins?" + urlencode({name: value for name, value in parameters.items() if value is not None})


def _after() -> int:
    sent = flask.request.args.get("after", "0")
    after = read_bigint(sent)
    if after is None and sent.isascii() and sent.isdigit():
        raise ProblemError(HTTPStatus.NOT_FOUND, "No coin has a task_run beyond that.")
    if after is None:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "after is the task_run of the last coin of a page.")
    return after


def _limit() -> int:
    limit = read_bigint(flask.request.args.get("limit", str(DEFAULT_LIMIT)))
    if limit is None or not 1 <= limit <= MAX_LIMIT:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"limit is a number from 1 to {MAX_LIMIT}.")
    return limit
