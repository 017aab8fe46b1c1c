"""What a worker process serves."""

import gc

from receiver.app import create_app
from receiver.serving.gateway import Gateway
from receiver.serving.stopping import end_with_parent
from receiver.settings import read_settings


def create_gateway() -> Gateway:
    """Build the application, and the gateway in front of it."""
    settings = read_settings()
    end_with_parent()
    app = create_app(settings)
    # What lives as long as the process need not be looked at by each collection of garbage.
    gc.collect()
    gc.freeze()
    return Gateway(
        app,
        threads=settings.receiver_threads,
        max_bytes=settings.receiver_max_bytes,
        body_seconds=settings.receiver_body_seconds,
    )
