"""What the receiver asks of PostgreSQL: land submissions, read back what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from receiver.database.connections import Connections
from receiver.parsing import ParsedCoins
from sql import schema_version

MAX_BIGINT = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Submission:
    """An accepted POST.

    Attributes:
        client: key name or address.
        content_type: as sent.
        idempotency_key: as sent, or None.
        body_sha256: digest of the body, its media type and the query.
        coins: the ids in it.
    """

    client: str
    content_type: str
    idempotency_key: str | None
    body_sha256: bytes
    coins: ParsedCoins


class Staging:
    """The staging tables, and the final table to read from."""

    def __init__(self, connections: Connections) -> None:
        """Work over these connections."""
        self._connections = connections

    def stage(self, submissions: Sequence[Submission]) -> list[int]:
        """Land submissions, all or none, and return their numbers after the commit.

        Raises:
            psycopg.errors.UniqueViolation: an idempotency key was used before by the same client.
            psycopg.OperationalError: the database is away; nothing was landed.
        """
        coins = [
            (place, coin_id, position)
            for place, submission in enumerate(submissions, start=1)
            for coin_id, position in submission.coins.accepted.items()
        ]
        rejected = [
            (place, coin) for place, submission in enumerate(submissions, start=1) for coin in submission.coins.rejected
        ]
        rows = self._connections.fetch(
            "receiver/stage_submissions",
            {
                "clients": [submission.client for submission in submissions],
                "content_types": [submission.content_type for submission in submissions],
                "idempotency_keys": [submission.idempotency_key for submission in submissions],
                "body_sha256s": [submission.body_sha256 for submission in submissions],
                "duplicates": [submission.coins.duplicates for submission in submissions],
                "coin_places": [place for place, _, _ in coins],
                "coin_ids": [coin_id for _, coin_id, _ in coins],
                "coin_positions": [position for _, _, position in coins],
                "rejected_places": [place for place, _ in rejected],
                "rejected_positions": [coin.position for _, coin in rejected],
                "rejected_values": [coin.value for _, coin in rejected],
                "rejected_reasons": [coin.reason for _, coin in rejected],
            },
        )
        return [row["id"] for row in rows]

    def find_submission(self, *, client: str, idempotency_key: str) -> dict[str, Any] | None:
        """Return the submission that a client made with a key, as it was first answered; None when there is none."""
        return self._connections.fetch_one(
            "receiver/find_submission", {"client": client, "idempotency_key": idempotency_key}
        )

    def read_submission(self, submission: int) -> dict[str, Any] | None:
        """Return a submission with its ids and their outcomes; None when there is none of that number."""
        return self._connections.fetch_one("receiver/read_submission", {"submission": submission})

    def find_coin(self, coin_id: str) -> dict[str, Any] | None:
        """Return a coin of the final table; None when it is not there."""
        return None if "\0" in coin_id else self._connections.fetch_one("receiver/find_coin", {"coin_id": coin_id})

    def list_coins(self, *, exchange: str | None, after: int, limit: int) -> list[dict[str, Any]]:
        """Return up to `limit` coins in the order of `task_run`, beginning after one, on one exchange or on any."""
        if exchange is None:
            return self._connections.fetch("receiver/list_coins", {"after": after, "limit": limit})
        if "\0" in exchange:
            return []
        return self._connections.fetch(
            "receiver/list_coins_on_exchange", {"exchange": exchange, "after": after, "limit": limit}
        )

    def is_migrated(self) -> bool:
        """Tell whether the schema is at least at the version that this code needs."""
        rows = self._connections.fetch("receiver/read_schema_version")
        return bool(rows) and str(rows[0]["version_num"]) >= schema_version()
