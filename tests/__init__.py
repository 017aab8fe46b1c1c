"""The tests, where the project lies that they are of, and what the machine has."""

import socket
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def has_ipv6() -> bool:
    """Tell whether the machine has the address ::1: in containers the kernel often knows IPv6, and nothing has one."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
