"""The floor: a bare Flask handler that parses JSON and does one INSERT and COMMIT over a psycopg pool.

No limits, no checks, no ids of its own: what anyone would write first. `FLOOR_THREADS` is the number of threads of
the server that runs it, and of connections.
"""

import os

import flask
from psycopg_pool import ConnectionPool


def create_app() -> flask.Flask:
    """Build the application; `DATABASE_URL` has a table `floor (ids text[])`."""
    app = flask.Flask("floor", static_folder=None)
    threads = int(os.environ["FLOOR_THREADS"])
    pool = ConnectionPool(
        os.environ["DATABASE_URL"], min_size=threads, max_size=threads, kwargs={"autocommit": True}, open=True
    )

    @app.post("/coins")
    def post_coins() -> tuple[dict[str, str], int]:
        coins = flask.request.get_json()["coins"]
        with pool.connection() as connection:
            connection.execute("INSERT INTO floor (ids) VALUES (%s)", (coins,))
        return {"message": "accepted"}, 202

    return app
