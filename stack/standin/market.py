"""The coins that the stand-in knows and where they are traded, the same on every machine and in every run."""

import random
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXCHANGES = (HERE / "exchange_ids.txt").read_text().split()

# Every id that the Rust coin-spewer draws from. The first 2 188 were on CoinGecko's list of August 2025, the first
# 240 of these are coins that many know; the other 7 029 were on it no more.
COIN_IDS = tuple((HERE / "coin_ids.txt").read_text().splitlines())
LISTED_COIN_IDS = COIN_IDS[:2188]
WELL_KNOWN_COINS = COIN_IDS[:240]

PAGE_SIZE = 100  # tickers, as CoinGecko has it

# Coins at the edges of CoinGecko's pages of a hundred, and one on no exchange at all.
TICKER_COUNTS = {"bitcoin": 450, "ethereum": 101, "tether": 100, "monacoin": 3, "gemini-dollar": 0}

_INVENTED_WORDS = (
    (
        "amber",
        "blue",
        "cosmic",
        "deep",
        "early",
        "fair",
        "golden",
        "hidden",
        "ivory",
        "jolly",
        "kind",
        "lunar",
    ),
    (
        "badger",
        "comet",
        "dolphin",
        "ember",
        "falcon",
        "garden",
        "harbor",
        "island",
        "jaguar",
        "koala",
        "lynx",
    ),
    ("cash", "coin", "dao", "finance", "inu", "network", "protocol", "swap", "token", "vault"),
)


@cache
def coin_ids(count: int) -> tuple[str, ...]:
    """Return `count` ids: the real first, then invented ones."""
    invented = (
        "-".join(
            [
                *(
                    words[(number // step) % len(words)]
                    for words, step in zip(_INVENTED_WORDS, (110, 10, 1), strict=True)
                ),
                str(number),
            ]
        )
        for number in range(max(0, count - len(COIN_IDS)))
    )
    return (*COIN_IDS[:count], *invented)


@cache
def active_ids(count: int, listed: int | None) -> frozenset[str]:
    """Return the first `listed` of `count` ids, all of them for None: the others are delisted."""
    return frozenset(coin_ids(count)[:listed])


def tickers_of(coin_id: str, *, listed_on: list[str] | None = None) -> list[dict[str, Any]]:
    """Return all tickers of a coin that the stand-in knows, in CoinGecko's shape.

    Args:
        coin_id: the coin.
        listed_on: its exchanges, one ticker on each; None for the usual ones.
    """
    chance = random.Random(coin_id)  # noqa: S311 (the same coin is always listed on the same exchanges)
    if listed_on is not None:
        return [ticker(coin_id, exchange, chance) for exchange in listed_on]
    count = TICKER_COUNTS.get(coin_id)
    if count is None:
        count = chance.randint(20, 90) if coin_id in WELL_KNOWN_COINS else chance.randint(0, 9)
    usual = chance.sample(EXCHANGES, k=min(len(EXCHANGES), (count + 1) // 2))
    return [ticker(coin_id, usual[number % len(usual)], chance) for number in range(count)]


def exchanges_of(coin_id: str) -> list[str]:
    """Return the exchanges of a coin, sorted and distinct: what `coins.exchanges` must say in the end."""
    return sorted({ticker["market"]["identifier"] for ticker in tickers_of(coin_id)})


def ticker(coin_id: str, exchange: str, chance: random.Random) -> dict[str, Any]:
    """Return one ticker of a coin on an exchange, in CoinGecko's shape."""
    target = chance.choice(("USDT", "USD", "BTC", "ETH", "EUR"))
    price = round(chance.uniform(0.01, 1000), 4)
    seen = "2026-01-01T00:00:00+00:00"
    return {
        "base": coin_id[:5].upper(),
        "target": target,
        "market": {
            "name": exchange.replace("_", " ").title(),
            "identifier": exchange,
            "has_trading_incentive": False,
        },
        "last": price,
        "volume": round(chance.uniform(1, 1e6), 2),
        "converted_last": {"btc": price / 50_000, "eth": price / 3_000, "usd": price},
        "trust_score": "green",
        "bid_ask_spread_percentage": 0.02,
        "timestamp": seen,
        "last_traded_at": seen,
        "last_fetch_at": seen,
        "is_anomaly": False,
        "is_stale": False,
        "trade_url": None,
        "token_info_url": None,
        "coin_id": coin_id,
    }
