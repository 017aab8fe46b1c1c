"""The classic design, to compare with: a Flask handler that asks CoinGecko inside the request, one row a coin.

Written as one would in earnest: a session and a pool that are reused, a timeout, ids escaped, a coin that failed told
to the client and no reason to lose the others. There are no retries: waiting until a limit allows the next call would
hold the request, and its thread, for up to a minute.
"""

import csv
import io
import os
from urllib.parse import quote

import flask
import requests
from psycopg_pool import ConnectionPool

CREATE_TABLE = "CREATE TABLE IF NOT EXISTS classic_coins (id text PRIMARY KEY, exchanges text[] NOT NULL)"
INSERT = """
    INSERT INTO classic_coins (id, exchanges) VALUES (%s, %s)
    ON CONFLICT (id) DO UPDATE SET exchanges = excluded.exchanges
"""
TIMEOUT = 10  # seconds


def create_app() -> flask.Flask:
    """Build the application; `FLOOR_THREADS` is the number of the server's threads, and of connections."""
    app = flask.Flask("classic", static_folder=None)
    base_url = os.environ["COINGECKO_BASE_URL"]
    threads = int(os.environ["FLOOR_THREADS"])
    pool = ConnectionPool(os.environ["DATABASE_URL"], min_size=threads, max_size=threads, open=True)
    with pool.connection() as connection:
        connection.execute(CREATE_TABLE)
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=threads))

    @app.post("/coins")
    def post_coins() -> dict[str, object]:
        failed = {}
        for coin_id in _coin_ids():
            try:
                exchanges = _exchanges_of(coin_id)
            except requests.RequestException as error:
                app.logger.warning("%s could not be looked up: %s", coin_id, error)
                failed[coin_id] = str(error)
                continue
            with pool.connection() as connection:
                connection.execute(INSERT, (coin_id, exchanges))
        return {"message": "completed", "failed": failed}

    def _exchanges_of(coin_id: str) -> list[str]:
        response = session.get(f"{base_url}/coins/{quote(coin_id, safe='')}/tickers", timeout=TIMEOUT)
        response.raise_for_status()
        return sorted({ticker["market"]["identifier"] for ticker in response.json()["tickers"]})

    return app


def _coin_ids() -> list[str]:
    if flask.request.is_json:
        return list(flask.request.get_json()["coins"])
    return [row["coins"] for row in csv.DictReader(io.StringIO(flask.request.get_data(as_text=True)))]
