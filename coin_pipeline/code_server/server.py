"""Dagster's gRPC server, with its runs started and ended in another way."""

import logging
import threading
import time
from multiprocessing.context import SpawnContext
from typing import Any

from dagster._grpc import server

from coin_pipeline.code_server.runs import RunContext

END_WITHIN = 20.0  # seconds from being told to; a healthy run takes two
LOOK_EVERY = 1.0  # seconds

log = logging.getLogger("dagster.code_server")


class CodeServer(server.DagsterApiServer):
    """Starts runs warm, and kills those that do not end when they are told to."""

    def __init__(self, *args: Any, **arguments: Any) -> None:  # noqa: ANN401 (as Dagster has it)
        super().__init__(*args, **arguments)
        if isinstance(getattr(self, "_mp_ctx", None), SpawnContext):
            self._mp_ctx = RunContext()
        else:
            log.warning("Runs start cold, a second later than need be: this Dagster starts them in another way")
        threading.Thread(target=self._kill_overdue, name="overdue", daemon=True).start()

    def _kill_overdue(self) -> None:
        # Without the lock of all executions, for which a frozen session of Dagster's storage may have others wait.
        while not self._server_termination_event.wait(LOOK_EVERY):
            for run_id, told_at in list(self._termination_times.items()):
                process, _ = self._executions.get(run_id, (None, None))
                if process is not None and time.time() - told_at > END_WITHIN and process.is_alive():
                    log.warning("The run %s did not end when it was told to, and is killed", run_id)
                    process.kill()


def install() -> None:
    """Have `dagster api grpc` serve by this class, which it looks up when it starts."""
    server.DagsterApiServer = CodeServer  # type: ignore[misc]  # it is a class here too
