"""CoinGecko's paths, shapes and 404s, behind its two limits and its faults."""

import math
import time
from collections.abc import Iterable
from http import HTTPStatus

import flask

from stack.standin.control import CONTROL
from stack.standin.faults import Refusal, answer_with
from stack.standin.faults.refusals import refusal
from stack.standin.market import PAGE_SIZE, coin_ids, tickers_of
from stack.standin.state import Call, StandIn

API_ROOT = "/api/v3"
ENVIRON_ARRIVED = "standin.arrived"  # on time.monotonic
PRO_KEY_HEADER = "x-cg-pro-api-key"
DEMO_KEY_HEADER = "x-cg-demo-api-key"

UNCAPPED_CREDIT = 500_000  # what /key says that a month has where there is no limit: the analyst plan's


def blueprint(standin: StandIn) -> flask.Blueprint:
    """Build CoinGecko's routes around the state."""
    api = flask.Blueprint("coingecko", __name__, url_prefix=API_ROOT)

    api.before_app_request(lambda: _admit(standin))
    api.after_app_request(lambda response: _settle(response, standin))

    @api.get("/ping")
    def get_ping() -> dict[str, str]:
        return {"gecko_says": "(V3) To the Moon!"}

    @api.get("/key")
    def get_key() -> flask.Response | dict[str, object]:
        if PRO_KEY_HEADER not in flask.request.headers:
            return refusal(10005 if DEMO_KEY_HEADER in flask.request.headers else 10002)
        return _account(standin)

    @api.get("/coins/list")
    def get_coins_list() -> list[dict[str, str]]:
        ids = coin_ids(standin.coins)
        listed = len(ids) if standin.listed is None else standin.listed
        return _list_of(ids[listed:] if flask.request.args.get("status") == "inactive" else ids[:listed])

    @api.get("/coins/<path:coin_id>/tickers")
    def get_tickers(coin_id: str) -> flask.Response | tuple[dict[str, str], int]:
        if not standin.knows(coin_id):
            return {"error": "coin not found"}, 404
        page = flask.request.args.get("page", 1, type=int)
        return _tickers(coin_id, listed_on=standin.listings.get(coin_id), page=page)

    return api


def _admit(standin: StandIn) -> flask.Response | None:
    """Note a call, and return what it is refused with, if it is."""
    request = flask.request
    if request.blueprint == CONTROL:
        return None
    flask.g.call = Call(
        at=request.environ[ENVIRON_ARRIVED],
        path=request.path,
        target=request.environ["REQUEST_URI"],
        page=request.args.get("page"),
    )
    standin.calls.append(flask.g.call)
    wait = standin.admit()
    flask.g.answer_at = flask.g.call.at + (0 if wait else standin.latency_seconds)
    if wait:
        return refusal(429, **{"Retry-After": str(math.ceil(wait))})
    fault = standin.fault_at(request.path.removeprefix(API_ROOT))
    if fault is not None:
        return answer_with(fault, page=request.args.get("page", 1, type=int))
    return None if standin.credit_left(_key()) > 0 else _used_up(standin)


def _settle(response: flask.Response, standin: StandIn) -> flask.Response:
    """Let an answer cost what it costs, send it when it is time, and note what it was."""
    call: Call | None = flask.g.get("call")
    if call is None:
        return response
    if _costs_credit(response):
        if standin.spend(_key()):
            call.cost = 1
        else:
            response = _used_up(standin)
    time.sleep(max(0, flask.g.answer_at - time.monotonic()))
    call.status = response.status_code
    if standin.advertised_limit is not None:
        response.headers["x-ratelimit-limit"] = str(standin.advertised_limit)
    return response


def _key() -> str:
    """Return the key of a call, whose credit it is; "" without one."""
    headers = flask.request.headers
    return headers.get(PRO_KEY_HEADER) or headers.get(DEMO_KEY_HEADER) or ""


def _costs_credit(response: flask.Response) -> bool:
    """Tell whether an answer costs a credit: a 200 that is no refusal does, but to ask for the credit is free."""
    return (
        response.status_code == HTTPStatus.OK
        and not isinstance(response, Refusal)
        and flask.request.path != f"{API_ROOT}/key"
    )


def _used_up(standin: StandIn) -> flask.Response:
    return refusal(10006, message=f"You've reached {standin.calls_per_month:,} calls limit.")


def _account(standin: StandIn) -> dict[str, object]:
    """Return what /key says of the key that asks; its own numbers are the account's, as there is one key in it."""
    credit = standin.calls_per_month or UNCAPPED_CREDIT
    used = standin.used[_key()]
    return {
        "plan": "Other",
        "rate_limit_request_per_minute": standin.calls_per_window,
        "monthly_call_credit": credit,
        "current_total_monthly_calls": used,
        "current_remaining_monthly_calls": max(0, credit - used),
        "api_key_rate_limit_request_per_minute": standin.calls_per_window,
        "api_key_monthly_call_credit": credit,
        "api_key_current_total_monthly_calls": used,
    }


def _list_of(listed: Iterable[str]) -> list[dict[str, str]]:
    return [{"id": coin_id, "symbol": coin_id[:4], "name": coin_id.replace("-", " ").title()} for coin_id in listed]


def _tickers(coin_id: str, *, listed_on: list[str] | None, page: int) -> flask.Response:
    """Return one page of a coin's tickers; the first has headers that tell of the others."""
    tickers = tickers_of(coin_id, listed_on=listed_on)
    answer = {
        "name": coin_id.replace("-", " ").title(),
        "tickers": tickers[(page - 1) * PAGE_SIZE : page * PAGE_SIZE],
    }
    response = flask.jsonify(answer)
    if page == 1:
        response.headers["Total"] = str(len(tickers))
        response.headers["Per-Page"] = str(PAGE_SIZE)
        last = math.ceil(len(tickers) / PAGE_SIZE)
        if last > 1:
            links = {"last": last, "next": 2}
            response.headers["Link"] = ", ".join(
                f'<{flask.request.base_url}?page={number}>; rel="{name}"' for name, number in links.items()
            )
    return response
