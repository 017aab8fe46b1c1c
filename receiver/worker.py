"""What a worker process serves."""

from receiver.app import create_app
from receiver.gateway import Gateway
from receiver.settings import read_settings
from receiver.stopping import end_with_parent
from receiver.telemetry import start_logging


def create_gateway() -> Gateway:
    """Build the application, and the gateway in front of it."""
    settings = read_settings()
    start_logging()
    end_with_parent()
    return Gateway(
        create_app(settings),
        threads=settings.receiver_threads,
        max_bytes=settings.receiver_max_bytes,
        body_seconds=settings.receiver_body_seconds,
    )
