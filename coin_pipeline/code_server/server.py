"""Dagster's gRPC server, with its runs started and ended in another way."""

import logging
import queue
import threading
import time
from multiprocessing.context import SpawnContext
from typing import Any

import dagster as dg

# No setting of Dagster's changes how its server starts and ends runs; that it is still this class is looked at below.
from dagster._core.instance.ref import InstanceRef
from dagster._grpc import server

from coin_pipeline.code_server.leftover_runs import release
from coin_pipeline.code_server.runs import RunContext, kill_what_runs_are_forked_from
from coin_pipeline.resources import Database

END_WITHIN = 20.0  # seconds from being told to; a healthy run takes two
# Seconds. Dagster's daemon ends a run that is older than it may be; what is older than this has outlived its run, as
# one that was frozen before it had begun, or has no daemon.
END_ANYWAY = 4000.0
LOOK_EVERY = 1.0  # seconds

log = logging.getLogger("dagster.code_server")


class CodeServer(server.DagsterApiServer):
    """Starts runs warm, kills those that do not end when they are told to, and frees at once what they held."""

    database: Database
    _ended: queue.SimpleQueue[tuple[str, InstanceRef]] = queue.SimpleQueue()

    def __init__(self, *args: Any, **arguments: Any) -> None:  # noqa: ANN401 (as Dagster has it)
        super().__init__(*args, **arguments)
        if not isinstance(getattr(self, "_mp_ctx", None), SpawnContext):
            log.warning("Runs start cold, a second later than need be: this Dagster starts them in another way")
            return
        self._mp_ctx = RunContext()
        for look in (self._kill_overdue, self._release_ended):
            threading.Thread(target=look, name=look.__name__, daemon=True).start()

    def _kill_overdue(self) -> None:
        # Without the lock of all executions, for which a frozen session of Dagster's storage may have others wait.
        seen_at: dict[str, float] = {}
        while not self._server_termination_event.wait(LOOK_EVERY):
            now = time.time()
            running = dict(self._executions)
            seen_at = {run_id: seen_at.get(run_id, now) for run_id in running}
            for run_id, (process, _) in running.items():
                told_at = self._termination_times.get(run_id, seen_at[run_id] + END_ANYWAY)
                if now - told_at > END_WITHIN and process.is_alive():
                    log.warning("The run %s did not end when it was told to, and is killed", run_id)
                    process.kill()
                    process.join(LOOK_EVERY)
                    if process.is_alive():  # only what it was forked from can tell, and is frozen itself
                        kill_what_runs_are_forked_from()

    def _check_for_orphaned_runs(self) -> None:
        try:
            super()._check_for_orphaned_runs()
        except Exception as error:  # noqa: BLE001 (the only thread that looks would end with it)
            log.warning("How runs have ended is not reported yet: %s", error)

    def _clear_run(self, run_id: str) -> None:
        # With that lock held, so that no database is asked here.
        _, instance = self._executions[run_id]
        self._ended.put((run_id, instance))
        super()._clear_run(run_id)

    def _release_ended(self) -> None:
        """Free what a run still held when its process ended: killed, or told to end before it had begun."""
        while True:
            run_id, reference = self._ended.get()
            try:
                with dg.DagsterInstance.from_ref(reference) as instance:
                    run = instance.get_run_by_id(run_id)
                release([run] if run else [], database=self.database)
            except Exception as error:  # noqa: BLE001 (whatever it is: a hold ends by itself, and the next run comes)
                log.warning("What the run %s held is not free yet: %s", run_id, error)


def install(database: Database) -> None:
    """Have `dagster api grpc` serve by this class, which it looks up when it starts.

    Args:
        database: where runs hold slots and leases.
    """
    CodeServer.database = database
    server.DagsterApiServer = CodeServer  # type: ignore[misc]  # it is a class here too
