"""What a worker process serves."""

from receiver.app import create_app
from receiver.gateway import Gateway
from receiver.settings import read_settings
from receiver.telemetry import start_logging


def create_gateway() -> Gateway:
    """Build the application, and the gateway in front of it."""
    settings = read_settings()
    start_logging()
    return Gateway(create_app(settings), threads=settings.receiver_threads, max_bytes=settings.receiver_max_bytes)
