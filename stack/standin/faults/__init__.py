"""The table of all that CoinGecko can answer on a bad day, by name; a file for each kind of it.

`refusals.py` has what CoinGecko and the network in front of it refuse with, `pages.py` odd pages of tickers,
`bodies.py` bodies that are no tickers, `connections.py` what happens to the bytes on their way.
"""

import json
import re
from http.client import responses

import flask

from stack.standin.faults.bodies import BODIES
from stack.standin.faults.connections import CONNECTIONS
from stack.standin.faults.pages import PAGES
from stack.standin.faults.refusals import REFUSALS, Refusal

__all__ = ["FAULTS", "Refusal", "answer_with", "fault_of", "is_fault"]

COIN_PREFIX = "standin-"

FAULTS = {**REFUSALS, **PAGES, **BODIES, **CONNECTIONS}

# Beside the table: `status-503` is that status with a body of no meaning, and `throttled-on-200` is the answer
# `throttled` with that status.
_STATUS = re.compile(r"status-(?P<status>[2-5]\d\d)")
_ON_STATUS = re.compile(r"(?P<fault>.+)-on-(?P<status>[2-5]\d\d)")


def is_fault(name: str) -> bool:
    """Tell whether there is a fault of this name."""
    on_status = _ON_STATUS.fullmatch(name)
    return name in FAULTS or bool(_STATUS.fullmatch(name)) or (on_status is not None and on_status["fault"] in FAULTS)


def fault_of(coin_id: str) -> str | None:
    """Return the fault that an id asks for, such as `standin-status-503`; None for an ordinary id."""
    fault = coin_id.removeprefix(COIN_PREFIX)
    return fault if fault != coin_id and is_fault(fault) else None


def answer_with(fault: str, *, page: int) -> flask.Response:
    """Return the faulty answer.

    Args:
        fault: its name.
        page: the page of tickers that was asked for.
    """
    if answer := FAULTS.get(fault):
        return answer(page)
    if status := _STATUS.fullmatch(fault):
        return _bare(int(status["status"]))
    on_status = _ON_STATUS.fullmatch(fault)
    if on_status is None:
        raise ValueError(f"there is no fault {fault!r}")
    response = FAULTS[on_status["fault"]](page)
    response.status_code = int(on_status["status"])
    return response


def _bare(status: int) -> flask.Response:
    return flask.Response(json.dumps({"error": responses.get(status, "unknown")}), status, mimetype="application/json")
