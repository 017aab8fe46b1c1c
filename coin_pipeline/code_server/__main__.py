"""Serve the code location to Dagster's daemon and web server: `python -m coin_pipeline.code_server`.

All runs that this server starts are its own: they end with it, so that none can have outlived an earlier one, and a run
that Dagster still believes to be under way was killed. It is reported as failed before anything new starts. Where runs
are started by something else, such as a launcher of pods, start `dagster api grpc` itself instead.

It serves the code that it has imported: new code needs a restart, "Reload" in the UI changes nothing.
"""

import os
import runpy
import sys
import threading

import dagster as dg

from coin_pipeline.code_server import probe, runs, server, watch
from coin_pipeline.code_server.leftover_runs import fail_leftover_runs
from coin_pipeline.resources import Database
from coin_pipeline.settings import SettingsError, read_settings


def main() -> None:
    """Check the settings, clean up, and become Dagster's gRPC server."""
    try:
        settings = read_settings()
    except SettingsError as error:
        sys.exit(str(error))
    host, port = os.environ["DAGSTER_CODE_SERVER_HOST"], os.environ["DAGSTER_CODE_SERVER_PORT"]
    runs.await_end_of_earlier_runs()
    runs.prepare()
    database = Database(url=settings.database_url)
    with dg.DagsterInstance.get() as instance:
        leftover = fail_leftover_runs(instance, database=database)
    if leftover:
        sys.stderr.write(f"Reported {leftover} runs as failed that were killed with an earlier code server.\n")
    threading.Thread(target=watch.end_when_deaf, args=(probe.own_address(),), name="watch", daemon=True).start()
    server.install(database)
    # A stop waits for the runs; not for a sensor that waits for work, which may be cut off.
    os.environ.setdefault("DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD", "1")
    location = ["--module-name", "coin_pipeline.definitions", "--host", host, "--port", port]
    sys.argv = ["dagster", "api", "grpc", *location]
    runpy.run_module("dagster", run_name="__main__")


if __name__ == "__main__":
    main()
