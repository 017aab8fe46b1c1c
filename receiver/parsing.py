"""From a request's body to the coin ids in it, exactly as they were sent."""

import codecs
import csv
import io
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from receiver.problems import ProblemError

MAX_ID_LENGTH = 128  # characters
MAX_REJECTED_VALUE_LENGTH = 200  # characters kept of an id that is rejected

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

csv.field_size_limit(2**31 - 1)  # the body's size is limited already; a long field is one rejected id


@dataclass(frozen=True, kw_only=True)
class RejectedCoin:
    """An item that cannot be staged.

    Attributes:
        position: its place among the items of the body, from 0.
        value: its text as sent, shortened and made storable.
        reason: what is wrong with it.
    """

    position: int
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ParsedCoins:
    """What a body holds; its items are accepted + duplicates + rejected.

    Attributes:
        accepted: each distinct good id with the position of its first occurrence, from 0, in order.
        duplicates: how many items repeated an accepted id.
        rejected: items that are no coin ids, in order.
    """

    accepted: dict[str, int]
    duplicates: int
    rejected: list[RejectedCoin]


def parse_coins(body: bytes, *, mimetype: str, parameters: Mapping[str, str], max_coins: int) -> ParsedCoins:
    """Read the coin ids of a request.

    Args:
        body: the raw body.
        mimetype: its media type in lower case, without parameters.
        parameters: the media type's parameters; only `charset` matters.
        max_coins: items that one body may hold.

    Raises:
        ProblemError: 400, 413, 415 or 422, with what to do about it.
    """
    if mimetype not in {"application/json", "text/csv"}:
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Send application/json or text/csv, not {mimetype or 'a body without a content type'}.",
        )
    text = _decode(body, charset=parameters.get("charset", "utf-8"))
    items = _items_of_json(text) if mimetype == "application/json" else _items_of_csv(text, at_most=max_coins + 1)
    if len(items) > max_coins:
        raise ProblemError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"A request may hold {max_coins} ids, and this one holds more; send them in several requests.",
        )
    return _sort_out(items)


def _decode(body: bytes, *, charset: str) -> str:
    try:
        is_utf8 = codecs.lookup(charset).name == "utf-8"
    except (LookupError, ValueError):
        is_utf8 = False
    if not is_utf8:
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send UTF-8, not {charset}.")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"The body is not UTF-8 at byte {error.start}.") from error


def _items_of_json(text: str) -> list[object]:
    try:
        document = json.loads(
            text, object_pairs_hook=_object_of, parse_constant=_no_constant, parse_int=_Number, parse_float=_Number
        )
    except RecursionError as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "The body is nested too deeply.") from error
    except ValueError as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"The body is not JSON: {error}.") from error
    if not isinstance(document, dict) or not isinstance(document.get("coins"), list):
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY, 'Send an object with a list of ids: {"coins": ["bitcoin"]}.'
        )
    return list(document["coins"])


@dataclass(slots=True)  # not frozen, which makes each of half a million cost twice as much
class _Number:
    """A JSON number, which is no id whatever its value; kept as sent, since Python cannot hold every one."""

    text: str


def _object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "An object of the body has the same key twice; send each key once.",
        )
    return members


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")


def _items_of_csv(text: str, *, at_most: int) -> list[object]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        if "coins" not in header:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "The first line must name a column coins.")
        if header.count("coins") > 1:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "The first line names the column coins twice.")
        column = header.index("coins")
        return [row[column] if column < len(row) else "" for row in itertools.islice(rows, at_most)]
    except csv.Error as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"The body is not CSV: {error}.") from error


def _sort_out(items: Iterable[object]) -> ParsedCoins:
    accepted: dict[str, int] = {}
    duplicates = 0
    rejected: list[RejectedCoin] = []
    for position, item in enumerate(items):
        coin_id = item.strip() if isinstance(item, str) else item
        reason = _reason_to_reject(coin_id)
        if reason is not None:
            rejected.append(RejectedCoin(position=position, value=_storable_text(item), reason=reason))
        elif coin_id in accepted:
            duplicates += 1
        else:
            accepted[str(coin_id)] = position
    return ParsedCoins(accepted=accepted, duplicates=duplicates, rejected=rejected)


def _reason_to_reject(coin_id: object) -> str | None:
    if not isinstance(coin_id, str):
        return "not a string"
    if not coin_id:
        return "empty id"
    if len(coin_id) > MAX_ID_LENGTH:
        return f"longer than {MAX_ID_LENGTH} characters"
    if not coin_id.isprintable():
        categories = {unicodedata.category(character) for character in coin_id}
        if "Cc" in categories:
            return "contains a control character"
        if "Cs" in categories:
            return "not valid Unicode"
    return None


def _storable_text(item: object) -> str:
    pieces = iter([item]) if isinstance(item, str) else _json_pieces(item)
    shortened = "".join(itertools.islice(itertools.chain.from_iterable(pieces), MAX_REJECTED_VALUE_LENGTH))
    return _UNSTORABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", shortened)


def _json_pieces(item: object) -> Iterator[str]:
    """Yield the JSON text of a parsed value, no further into it than it is asked for."""
    if isinstance(item, _Number):
        yield item.text
    elif isinstance(item, list):
        yield "["
        for place, each in enumerate(item):
            yield ", " if place else ""
            yield from _json_pieces(each)
        yield "]"
    elif isinstance(item, dict):
        yield "{"
        for place, (name, each) in enumerate(item.items()):
            yield f"{', ' if place else ''}{json.dumps(name, ensure_ascii=False)}: "
            yield from _json_pieces(each)
        yield "}"
    else:
        yield json.dumps(item, ensure_ascii=False)
