"""What Schemathesis does not know: how a CSV body is written, and which parts of a request depend on each other."""

import re
import secrets
from typing import Any

import schemathesis

GOOD_ID = re.compile("[!-~]{1,128}")
GOOD_CSV = re.compile("coins\n[a-z][a-z0-9-]{0,100}(\n[a-z][a-z0-9-]{0,100}){0,20}")
GOOD_KEY = re.compile("[!-~]{1,255}")


@schemathesis.serializer("text/csv")
def csv_as_it_is(_context: object, value: Any) -> bytes:  # noqa: ANN401 (Schemathesis sends what it likes)
    """Send the text itself."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@schemathesis.hook
def filter_case(_context: object, case: Any) -> bool:  # noqa: ANN401
    """Leave out what a schema cannot say.

    A strict request with a bad id: each part of it is good, and it is refused. And CSV that is not of the documented
    pattern: most of it is taken all the same, and `test_parsing` has the rest.
    """
    if case.media_type == "text/csv":
        return isinstance(case.body, str) and GOOD_CSV.fullmatch(case.body) is not None
    is_strict = (case.query or {}).get("strict") == "1"
    coins = case.body.get("coins") if isinstance(case.body, dict) else None
    return not (is_strict and isinstance(coins, list) and not all(_is_good(item) for item in coins))


@schemathesis.hook
def before_call(_context: object, case: Any, _arguments: object) -> None:  # noqa: ANN401
    """Give every request that has a good key a new one."""
    if case.headers and GOOD_KEY.fullmatch(str(case.headers.get("Idempotency-Key", ""))):
        case.headers["Idempotency-Key"] = secrets.token_hex(16)


def _is_good(item: object) -> bool:
    return isinstance(item, str) and GOOD_ID.fullmatch(item) is not None
