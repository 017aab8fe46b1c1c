"""Numbers in URLs."""

from receiver.database.staging import MAX_BIGINT

MAX_BIGINT_DIGITS = 19


def read_bigint(text: str) -> int | None:
    """Return the number that `text` is, in plain digits; None when it is none that PostgreSQL's bigint holds."""
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_BIGINT_DIGITS):
        return None
    number = int(text)
    return number if number <= MAX_BIGINT else None
