"""Serve the receiver until SIGTERM: `python -m receiver`."""

import os
import tempfile

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings

from receiver.serving.sockets import address_of, raise_descriptor_limit
from receiver.serving.stopping import ignore_stopping_signal, stop_after_drain
from receiver.settings import read_settings

HEAD_SECONDS = 10  # for a request's head, from the answer before it: a connection that says nothing for longer is ended


def main() -> None:
    """Check the settings, then let Granian serve the application."""
    settings = read_settings()
    address = address_of(settings)
    # Where the worker processes keep their metrics; whoever started this one may have a place for metrics of its own.
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    ignore_stopping_signal()
    server = Granian(
        "receiver.serving.worker:create_gateway",
        factory=True,
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEAD_SECONDS * 1000),
        address=address,
        port=settings.receiver_port,
        workers=settings.receiver_workers,
        backpressure=raise_descriptor_limit(),
        respawn_failed_workers=True,
        workers_kill_timeout=5,
        websockets=False,
    )
    server.on_startup(lambda: stop_after_drain(settings.receiver_drain_seconds))
    with tempfile.TemporaryDirectory(prefix="receiver-metrics-") as directory:
        if settings.receiver_workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        server.serve()


if __name__ == "__main__":
    main()
