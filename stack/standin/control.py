"""What one can tell the stand-in while it runs, beside CoinGecko's own paths: faults, and the month's credit.

`POST /standin/faults/429-html?coin=bitcoin&calls=3` gives a fault, `DELETE /standin/faults` ends all, `GET
/standin/faults` names all that there are; `PUT /standin/credit?used=450&key=K` says what others have used up, `DELETE
/standin/credit` begins a new month; `GET /standin` says how it stands.
"""

from collections import Counter

import flask

from stack.standin.faults import FAULTS
from stack.standin.rules import rule_with
from stack.standin.state import StandIn

CONTROL = "control"


def blueprint(standin: StandIn) -> flask.Blueprint:
    """Build the routes around the state."""
    control = flask.Blueprint(CONTROL, __name__, url_prefix="/standin")

    @control.get("")
    def get_state() -> dict[str, object]:
        return {
            "calls": len(standin.calls),
            "statuses": Counter(str(call.status) for call in standin.calls if call.status is not None),
            "busiest_window": standin.busiest_window(),
            "calls_per_month": standin.calls_per_month,
            "used": standin.used,
            "faults": [
                {"fault": rule.fault, "path": rule.path.pattern, "calls_left": rule.calls} for rule in standin.rules
            ],
        }

    @control.get("/faults")
    def get_faults() -> list[str]:
        return [*FAULTS]

    @control.post("/faults/<fault>")
    def post_fault(fault: str) -> tuple[str, int]:
        try:
            standin.rules.insert(0, rule_with(fault, flask.request.args))
        except ValueError as error:
            return f"{error}\n", 400
        return "", 204

    @control.delete("/faults")
    def delete_faults() -> tuple[str, int]:
        standin.recover()
        return "", 204

    @control.put("/credit")
    def put_credit() -> tuple[str, int]:
        standin.used[flask.request.args.get("key", "")] = flask.request.args.get("used", 0, type=int)
        return "", 204

    @control.delete("/credit")
    def delete_credit() -> tuple[str, int]:
        standin.used.clear()
        return "", 204

    return control
