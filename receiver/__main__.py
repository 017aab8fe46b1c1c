"""Serve the receiver until SIGTERM: `python -m receiver`."""

from granian import Granian
from granian.constants import Interfaces

from receiver.settings import read_settings


def main() -> None:
    """Check the settings, then let Granian serve the application."""
    settings = read_settings()
    Granian(
        "receiver.app:create_app",
        factory=True,
        interface=Interfaces.WSGI,
        address=settings.receiver_host,
        port=settings.receiver_port,
        workers=settings.receiver_workers,
        blocking_threads=settings.receiver_threads,
        respawn_failed_workers=True,
        workers_kill_timeout=5,
        websockets=False,
    ).serve()


if __name__ == "__main__":
    main()
