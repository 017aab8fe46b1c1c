"""From a request's body to the coin ids in it, exactly as they were sent."""

import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from werkzeug.http import parse_options_header

from receiver.problems import ProblemError

MAX_ID_LENGTH = 128  # characters
MAX_REJECTED_VALUE_LENGTH = 200  # characters kept of an id that is rejected

MAX_SHOWN_LENGTH = 60  # characters repeated of what a client sent, where it is told what is wrong

# UTF-8 and US-ASCII, which is a part of it, by all names that are in use, without what names are told apart by in vain.
# Not by `codecs.lookup`, which keeps each unknown name for ever.
UTF8_NAMES = {
    *("", "utf8", "utf", "u8", "csutf8", "utf8sig", "utf8mb4", "cp65001", "unicode11utf8"),
    *("ascii", "usascii", "us", "csascii", "iso646us", "iso646irv1991", "isoir6", "ansix341968", "ansix341986"),
    *("ibm367", "cp367"),
}
_NO_PART_OF_A_NAME = str.maketrans("", "", " -_.:'\"")

PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")  # how gzip, zip with Excel's files, and zstd begin

BAD_CATEGORIES = {
    "Cc": "contains a control character",
    "Cs": "not valid Unicode",
    "Cf": "contains an invisible character",
}

SEPARATORS = (",", ";", "\t")
_SEPARATOR_LINE = re.compile(r"""\s*"?sep=([^"\r\n])"?[^\S\r\n]*(?:\r\n|\r|\n|\Z)""", re.IGNORECASE)

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


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


def refuse_encoded(*, content_encoding: str, transfer_encoding: str) -> None:
    """Raise 415 for a body that is packed, or said to be."""
    for name, sent, taken in (
        ("Content-Encoding", content_encoding, {"", "identity"}),
        ("Transfer-Encoding", transfer_encoding, {"", "identity", "chunked"}),
    ):
        if any(coding.strip() not in taken for coding in sent.lower().split(",")):
            raise ProblemError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"Send the body as it is, without a {name} such as gzip.",
                headers={"Accept-Encoding": "identity"},
            )


def read_media_type(content_type: str) -> tuple[str, dict[str, str]]:
    """Return a media type in lower case, and its parameters; sent twice, it arrives as one value with a comma."""
    values = {value.strip() for value in content_type.split(",")}
    mimetype, parameters = parse_options_header(values.pop() if len(values) == 1 else content_type)
    return mimetype.lower(), parameters


def parse_coins(body: bytes, *, mimetype: str, parameters: Mapping[str, str], max_coins: int) -> ParsedCoins:
    """Read the coin ids of a request.

    Args:
        body: the raw body.
        mimetype: its media type in lower case, without parameters.
        parameters: the media type's parameters; only `charset` and `header` matter.
        max_coins: items that one body may hold.

    Raises:
        ProblemError: 400, 413, 415 or 422, with what to do about it.
    """
    if mimetype not in {"application/json", "text/csv"}:
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Send the Content-Type application/json or text/csv, not {_shown(mimetype) or 'none'}.",
        )
    text = _decode(body, charset=parameters.get("charset", ""))
    if mimetype == "application/json":
        items = _items_of_json(text)
    elif parameters.get("header", "").lower() == "absent":
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "The media type says header=absent; send a first line that names a column coins, and no header=absent.",
        )
    else:
        items = _items_of_csv(text, at_most=max_coins + 1)
    if len(items) > max_coins:
        raise ProblemError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"A request may hold {max_coins} ids, and this one holds more; send them in several requests.",
        )
    return _sort_out(items)


def _shown(text: str) -> str:
    """Return what a client sent, no longer than it takes to recognise it."""
    return text if len(text) <= MAX_SHOWN_LENGTH else text[:MAX_SHOWN_LENGTH] + " ..."


def _decode(body: bytes, *, charset: str) -> str:
    if charset.lower().translate(_NO_PART_OF_A_NAME) not in UTF8_NAMES:
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send UTF-8, not {_shown(charset)}.")
    if body.startswith(PACKED):
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "The body is a packed file, such as .gz or .xlsx; send the text that is in it, as CSV or JSON.",
        )
    if body.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in body[:2]:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST, "The body is UTF-16 or UTF-32 from line 1 on; save or send it as UTF-8."
        )
    try:
        return body.decode().lstrip("\ufeff")
    except UnicodeDecodeError as error:
        line = len((body[: error.start] + b"?").splitlines())
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            f"Line {line} is not UTF-8, at byte {error.start} of the body; save or send it as UTF-8, not Windows-1252.",
        ) from error


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


@dataclass(slots=True)
class _BadRow:
    """A row that has no id to be read, in the first line of its text."""

    text: str
    reason: str


def _items_of_csv(text: str, *, at_most: int) -> list[object]:
    """Return what is in the column coins; the separator is the one that the header line uses beside its name."""
    separator_line = _SEPARATOR_LINE.match(text)
    if separator_line is not None:
        text = text[separator_line.end() :]
    for separator in SEPARATORS if separator_line is None else (separator_line[1],):
        rows = _rows_of_csv(text, separator)
        first = next(rows, [])
        header = [] if isinstance(first, _BadRow) else [_trim(name).lower() for name in first]
        if "coins" not in header:
            continue
        if header.count("coins") > 1:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "The first line names the column coins twice.")
        column, columns = header.index("coins"), len(header)
        return [_cell_of(row, column, columns, separator) for row in itertools.islice(rows, at_most)]
    lines = text.strip().splitlines() or [""]
    cure = (
        "" if len(lines) > 1 else ", and the ids follow on lines of their own; curl keeps line ends with --data-binary"
    )
    raise ProblemError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"Line 1 must name a column coins, with a comma, semicolon or tab between columns{cure}."
        f" It is: {_shown(lines[0]) or 'empty'}",
    )


def _cell_of(row: list[str] | _BadRow, column: int, columns: int, separator: str) -> object:
    """Return what a row has in the column; where it has more cells than there are columns, nobody knows which it is."""
    if isinstance(row, _BadRow):
        return row
    if any(map(str.strip, row[columns:])):
        return _BadRow(separator.join(row), "more cells than the first line has columns")
    return row[column] if column < len(row) else ""


def _rows_of_csv(text: str, separator: str) -> Iterator[list[str] | _BadRow]:
    """Yield the rows that are not blank, as cells.

    Not by the module csv: it knows no space after a quote and, once it met a row that it cannot read, no next one.
    """
    if '"' not in text:
        for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
            if line.replace(separator, "").strip():
                yield line.split(separator)
        return
    blank_rows = re.compile(rf"(?:[\s{re.escape(separator)}]*[\r\n])?")
    rest_of_line = re.compile(r"([^\r\n]*)(?:\r\n|\r|\n|\Z)")
    cell = _cell_pattern(separator, quoted=r'[^"]')
    position = 0
    while (position := blank_rows.match(text, position).end()) < len(text):  # type: ignore[union-attr]
        start, cells, found = position, [], None
        while (found is None or found["end"] == separator) and (found := cell.match(text, position)):
            cells.append(found["plain"] if found["quoted"] is None else found["quoted"].replace('""', '"'))
            position = found.end()
        if found is None:
            # From here on no quote goes on in the next line, so that no line is read twice.
            cell = _cell_pattern(separator, quoted=r'[^"\r\n]')
            broken = rest_of_line.match(text, start)
            yield _BadRow(broken[1], "not CSV: a quote is not closed, or followed by text")  # type: ignore[index]
            position = broken.end()  # type: ignore[union-attr]
        elif text.find('"', start, position) >= 0 or any(map(str.strip, cells)):
            yield cells


def _cell_pattern(separator: str, *, quoted: str) -> re.Pattern[str]:
    """Return what matches a cell and what ends it; possessive, so that it looks at no character over and over."""
    separator = re.escape(separator)
    space = rf"[^\S\r\n{separator}]*+"
    return re.compile(
        rf"""(?:{space}"(?P<quoted>{quoted}*+(?:""{quoted}*+)*+)"{space}|(?!{space}")(?P<plain>[^\r\n{separator}]*+))"""
        rf"(?P<end>{separator}|\r\n|\r|\n|\Z)"
    )


def _sort_out(items: Iterable[object]) -> ParsedCoins:
    accepted: dict[str, int] = {}
    duplicates = 0
    rejected: list[RejectedCoin] = []
    for position, item in enumerate(items):
        coin_id = _trim(item) if isinstance(item, str) else item
        reason = _reason_to_reject(coin_id)
        if reason is not None:
            rejected.append(RejectedCoin(position=position, value=_storable_text(item), reason=reason))
        elif coin_id in accepted:
            duplicates += 1
        else:
            accepted[str(coin_id)] = position
    return ParsedCoins(accepted=accepted, duplicates=duplicates, rejected=rejected)


def _trim(text: str) -> str:
    """Return a text without what nobody sees at its ends: white space and characters of the category Cf."""
    text = text.strip()
    if text.isprintable():
        return text
    return text.strip("".join(each for each in set(text) if each.isspace() or unicodedata.category(each) == "Cf"))


def _reason_to_reject(coin_id: object) -> str | None:
    if isinstance(coin_id, _BadRow):
        return coin_id.reason
    if not isinstance(coin_id, str):
        return "not a string"
    if not coin_id:
        return "empty id"
    if len(coin_id) > MAX_ID_LENGTH:
        return f"longer than {MAX_ID_LENGTH} characters"
    if not coin_id.isprintable():
        categories = {unicodedata.category(character) for character in coin_id}
        return next((reason for category, reason in BAD_CATEGORIES.items() if category in categories), None)
    return None


def _storable_text(item: object) -> str:
    text = item.text if isinstance(item, _BadRow) else item
    pieces = iter([text]) if isinstance(text, str) else _json_pieces(text)
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
