"""Serve the receiver until SIGTERM: `python -m receiver`."""

import os
import tempfile

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops

from receiver.serving.stopping import ignore_stopping_signal, stop_after_drain
from receiver.settings import read_settings


def main() -> None:
    """Check the settings, then let Granian serve the application."""
    settings = read_settings()
    ignore_stopping_signal()
    server = Granian(
        "receiver.serving.worker:create_gateway",
        factory=True,
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        address=settings.receiver_host,
        port=settings.receiver_port,
        workers=settings.receiver_workers,
        respawn_failed_workers=True,
        workers_kill_timeout=5,
        websockets=False,
    )
    server.on_startup(lambda: stop_after_drain(settings.receiver_drain_seconds))
    with tempfile.TemporaryDirectory(prefix="receiver-metrics-") as directory:
        if settings.receiver_workers > 1:
            # Where the worker processes keep their metrics, for any of them to show them all.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        server.serve()


if __name__ == "__main__":
    main()
