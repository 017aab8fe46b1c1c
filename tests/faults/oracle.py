"""The oracle: compares what every client was told with what PostgreSQL holds in the end."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

LONGEST_ID = 128  # characters

ExchangesOf = Callable[[str], list[str] | None]


@dataclass(frozen=True, kw_only=True)
class Told:
    """A POST, and what its client was told.

    Attributes:
        coin_ids: as sent, in their order.
        key: the Idempotency-Key.
        status: of the last answer; None where there was none.
        answer: the body of a 202.
        is_retried: it was sent before, with the same key, and that was not answered, or with 5xx.
    """

    coin_ids: Sequence[str]
    key: str | None = None
    status: int | None = None
    answer: dict[str, Any] = field(default_factory=dict)
    is_retried: bool = False

    @property
    def is_acknowledged(self) -> bool:
        """Whether the client may rely on it."""
        return self.status == 202

    @property
    def may_have_landed(self) -> bool:
        """Whether nothing was promised, and nothing denied either: no answer, or 5xx."""
        return self.is_retried or self.status is None or self.status >= 500

    @property
    def good_ids(self) -> frozenset[str]:
        """The ids that have to be staged when it is taken."""
        return frozenset(trim(coin_id) for coin_id in self.coin_ids if is_good(coin_id))


@dataclass(frozen=True, kw_only=True)
class _Landed:
    """What PostgreSQL holds of one submission."""

    key: str | None
    outcomes: dict[str, str | None] = field(default_factory=dict)
    rejected: list[tuple[int, str, str]] = field(default_factory=list)


def is_good(coin_id: str) -> bool:
    """Tell whether an id is one that the receiver has to take."""
    trimmed = trim(coin_id)
    categories = {unicodedata.category(character) for character in trimmed}
    return 0 < len(trimmed) <= LONGEST_ID and not categories & {"Cc", "Cs", "Cf"}


def trim(coin_id: str) -> str:
    """Return an id without what nobody sees at its ends."""
    invisible = {each for each in coin_id if each.isspace() or unicodedata.category(each) == "Cf"}
    return coin_id.strip("".join(invisible))


def find_violations(
    connection: psycopg.Connection,
    told: Sequence[Told],
    *,
    exchanges_of: ExchangesOf,
    known_before: Collection[str] = (),
) -> list[str]:
    """Return a line for every promise that was broken; none when every client was told the truth.

    Args:
        connection: to `challenge_db`, after the last POST was sent.
        told: every POST that was sent to this database.
        exchanges_of: what CoinGecko says of an id, sorted and distinct; None where it does not know it.
        known_before: ids that were in `coins` before anything was sent.
    """
    landed = _read_landed(connection)
    coins: list[tuple[str, list[str], bool]] = [
        (str(row[0]), list(row[1]), bool(row[2]))
        for row in connection.execute("SELECT id, exchanges, complete FROM coins")
    ]
    return [
        *_broken_promises(landed, told),
        *_uninvited(landed, told),
        *_untrue_outcomes(landed, exchanges_of, known_before, in_coins={coin_id for coin_id, _, _ in coins}),
        *_wrong_coins(coins, exchanges_of, sent={*known_before, *(each for one in told for each in one.good_ids)}),
        *_open_ends(connection, landed),
    ]


def _read_landed(connection: psycopg.Connection) -> dict[int, _Landed]:
    landed = {
        int(number): _Landed(key=key)
        for number, key in connection.execute("SELECT id, idempotency_key FROM submissions")
    }
    for number, coin_id, outcome in connection.execute("SELECT submission_id, coin_id, outcome FROM staged_coins"):
        landed[number].outcomes[coin_id] = outcome
    rejected = "SELECT submission_id, position, value, reason FROM rejected_coins ORDER BY position"
    for number, position, value, reason in connection.execute(rejected):
        landed[number].rejected.append((position, value, reason))
    return landed


def _broken_promises(landed: dict[int, _Landed], told: Sequence[Told]) -> Iterator[str]:
    """What was answered 202 is there, whole, and once."""
    for one in told:
        if not one.is_acknowledged:
            continue
        number = one.answer["submission"]
        if number not in landed:
            yield f"submission {number} was acknowledged and is not there"
            continue
        found = landed[number]
        if missing := one.good_ids - found.outcomes.keys():
            yield f"submission {number} was acknowledged without {sorted(missing)}"
        if stranger := found.outcomes.keys() - one.good_ids:
            yield f"submission {number} holds {sorted(stranger)}, which were not sent"
        answered = [(each["position"], each["value"], each["reason"]) for each in one.answer["rejected"]]
        if answered != found.rejected:
            yield f"submission {number} says that it rejected {answered}, and holds {found.rejected}"
        places = [position for position, coin_id in enumerate(one.coin_ids) if not is_good(coin_id)]
        if [position for position, _, _ in answered] != places:
            yield f"submission {number} rejected {answered}, and the bad ids were at {places}"
        counts = one.answer["accepted"], one.answer["duplicates"]
        expected = len(one.good_ids), len(one.coin_ids) - len(one.good_ids) - len(places)
        if counts != expected:
            yield f"submission {number} says (accepted, duplicates) = {counts}, and it was {expected}"


def _uninvited(landed: dict[int, _Landed], told: Sequence[Told]) -> Iterator[str]:
    """Whatever else is there was sent by a client that was told nothing, and is there once for each time."""
    numbers = Counter(one.answer["submission"] for one in told if one.is_acknowledged)
    for number, times in numbers.items():
        if times > 1:
            yield f"submission {number} was given to {times} clients"
    keys = Counter(found.key for found in landed.values() if found.key is not None)
    yield from (f"the key {key} has {times} submissions" for key, times in keys.items() if times > 1)
    maybe = Counter((one.key, one.good_ids) for one in told if one.may_have_landed and not one.is_acknowledged)
    for number in landed.keys() - numbers.keys():
        sent = (landed[number].key, frozenset(landed[number].outcomes))
        maybe[sent] -= 1
        if maybe[sent] < 0:
            yield f"submission {number} holds {sorted(sent[1])[:10]}, which nobody sent or was refused"


def _untrue_outcomes(
    landed: dict[int, _Landed], exchanges_of: ExchangesOf, known_before: Collection[str], *, in_coins: Collection[str]
) -> Iterator[str]:
    """A coin is added once and known afterwards; what CoinGecko does not know is unknown; nothing else failed."""
    added: Counter[str] = Counter()
    for number, found in landed.items():
        for coin_id, outcome in found.outcomes.items():
            is_coin = exchanges_of(coin_id) is not None
            if outcome is not None and outcome not in ({"added", "already_known"} if is_coin else {"unknown"}):
                yield f"{coin_id!r} of submission {number} is {outcome}, and is{'' if is_coin else ' not'} a coin"
            if outcome in {"added", "already_known"} and coin_id not in in_coins:
                yield f"{coin_id!r} of submission {number} is {outcome}, and not in coins"
            added[coin_id] += outcome == "added"
    for coin_id in in_coins:
        if added[coin_id] != (0 if coin_id in known_before else 1):
            yield f"{coin_id!r} is in coins, and was added {added[coin_id]} times"


def _wrong_coins(
    coins: list[tuple[str, list[str], bool]], exchanges_of: ExchangesOf, *, sent: Collection[str]
) -> Iterator[str]:
    """Each coin is there once, was asked for, and says what CoinGecko says."""
    for coin_id, times in Counter(coin_id for coin_id, _, _ in coins).items():
        if times > 1:
            yield f"{coin_id!r} is in coins {times} times"
    for coin_id, exchanges, complete in coins:
        if coin_id not in sent:
            yield f"{coin_id!r} is in coins, and nobody sent it"
        if exchanges != exchanges_of(coin_id) or not complete:
            yield f"{coin_id!r} is on {exchanges} (complete: {complete}), and should be on {exchanges_of(coin_id)}"


def _open_ends(connection: psycopg.Connection, landed: dict[int, _Landed]) -> Iterator[str]:
    """Nothing is pending, and nothing waits for a lookup that nobody wanted."""
    for number, found in landed.items():
        if pending := [coin_id for coin_id, outcome in found.outcomes.items() if outcome is None]:
            yield f"{len(pending)} ids of submission {number} are pending: {sorted(pending)[:10]}"
    wanted = {coin_id for found in landed.values() for coin_id in found.outcomes}
    for coin_id, state in connection.execute("SELECT coin_id, state FROM coin_lookups"):
        if state == "pending":
            yield f"the lookup of {coin_id!r} is pending"
        if coin_id not in wanted and state != "found":
            yield f"there is a lookup of {coin_id!r}, which nobody sent"
