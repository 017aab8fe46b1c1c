"""Where the server listens, and how many connections it takes."""

import resource
import socket
import sys

from receiver.settings import ReceiverSettings

MOST_DESCRIPTORS = 65_536  # of one process; a connection costs some 10 KiB
OTHER_DESCRIPTORS = (
    640  # connections to PostgreSQL take two each, of 256 at most; then Redis, files and the loop itself
)


def address_of(settings: ReceiverSettings) -> str:
    """Return the address that a host name stands for, or end the process with one line when none can be listened at."""
    host = settings.receiver_host.strip("[]")
    try:
        found = socket.getaddrinfo(host, settings.receiver_port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        sys.exit(f"RECEIVER_HOST: {host!r} is neither an address nor a name of one")
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)  # of both, what older clients try
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except OSError as error:
            sys.exit(
                f"RECEIVER_HOST and RECEIVER_PORT: cannot listen at {host} {settings.receiver_port}: {error.strerror}"
            )
    return str(address[0])


def raise_descriptor_limit() -> int:
    """Raise the limit of descriptors as far as it goes, and return how many connections stay below it.

    At the limit itself a server that accepts connections could neither take the next nor leave it: it would spin.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if 0 <= soft < descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
    return max(descriptors - OTHER_DESCRIPTORS, descriptors // 4)
