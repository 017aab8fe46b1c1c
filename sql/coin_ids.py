"""Which texts can be coin ids: what the receiver stages, and nothing else."""

MAX_LENGTH = 128  # characters


def can_be_coin_id(text: str) -> bool:
    """Tell whether a text can be an id that was staged: trimmed, not empty, not too long, and storable."""
    is_storable = "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
    return text == text.strip() and 0 < len(text) <= MAX_LENGTH and is_storable
