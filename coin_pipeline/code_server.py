"""Serve the code location to Dagster's daemon and web server: `python -m coin_pipeline.code_server`.

All runs on this database are children of this process, so that none can have outlived an earlier one: a run that
Dagster still believes to be under way was killed. It is reported as failed before anything new starts, and the next
run need not wait for slots and leases to lapse. Where runs are no children of it, as on Kubernetes, start
`dagster api grpc` itself instead.
"""

import gc
import os
import runpy
import sys

if __name__ in {"__main__", "__mp_main__"}:  # the server, and each run: multiprocessing spawns it from this module
    # Looking for garbage among the modules of Dagster while they are imported takes a sixth of a second.
    gc.set_threshold(100_000)

import dagster as dg
import psycopg

from coin_pipeline.settings import SettingsError, read_settings
from sql import query

UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def fail_leftover_runs(instance: dg.DagsterInstance, *, database_url: str) -> int:
    """Report every run that an earlier code server left behind as failed, and hand back the lookups that it held.

    Returns:
        How many there were.
    """
    leftover = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(query("lookups/release_lookup_runs"))
    for run in leftover:
        instance.report_run_failed(run, "The process of this run was killed; its lookups are taken up by the next run.")
    return len(leftover)


def main() -> None:
    """Check the settings, clean up, and become Dagster's gRPC server."""
    try:
        settings = read_settings()
    except SettingsError as error:
        sys.exit(str(error))
    with dg.DagsterInstance.get() as instance:
        leftover = fail_leftover_runs(instance, database_url=settings.database_url)
    if leftover:
        sys.stderr.write(f"Reported {leftover} runs as failed that were killed with an earlier code server.\n")
    host, port = os.environ["DAGSTER_CODE_SERVER_HOST"], os.environ["DAGSTER_CODE_SERVER_PORT"]
    location = ["--module-name", "coin_pipeline.definitions", "--host", host, "--port", port]
    sys.argv = ["dagster", "api", "grpc", *location]
    runpy.run_module("dagster", run_name="__main__")


if __name__ == "__main__":
    main()
