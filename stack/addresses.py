"""Where the stack listens, and how this machine reaches it."""

import errno
import ipaddress
import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from stack.errors import StackError

# Whoever is told `localhost` may take either, so a port is ours only when both are free.
LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
HIGHEST_PORT = 65535
# Below those that a kernel gives to connections: one of these would be taken by any of them until somebody listens
# there, also while a service is started again.
FREE_PORTS = range(20_000, 30_000)
CONNECT_TIMEOUT = 1.0  # seconds; a firewall may swallow what is sent to a port


@dataclass(frozen=True)
class Port:
    """A TCP port, and what gives another: the variable that gave this one, else an option."""

    number: int
    given_with: str


@dataclass(frozen=True, kw_only=True)
class Ports:
    """TCP ports; a stand-in's is None where none runs."""

    receiver: Port
    ui: Port
    code_server: int
    standin: int | None


def chosen_port(given: int | None, *, option: str, variable: str, default: int) -> Port:
    """Return the port that an option gives, else a variable, else the default.

    Raises:
        StackError: what the variable holds is no port.
    """
    text = os.environ.get(variable, "").strip()
    if given is not None or not text:
        return Port(given or default, option)
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= HIGHEST_PORT):
        raise StackError(f"{variable}: {text!r} is no port, a number from 1 to {HIGHEST_PORT}")
    return Port(int(text), variable)


def free_port() -> int:
    """Return a TCP port that is free on the loopback interface, in both families."""
    while True:
        number = secrets.choice(FREE_PORTS)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", number))
            if not is_taken(number):
                return number


def is_taken(number: int) -> bool:
    """Tell whether somebody takes connections at a port of this machine, in either family."""
    return any(_answers(family, address, number) for family, address in LOOPBACK)


def _answers(family: socket.AddressFamily, address: str, number: int) -> bool:
    with suppress(OSError), socket.socket(family) as probe:  # a family may be missing here
        probe.settimeout(CONNECT_TIMEOUT)
        return probe.connect_ex((address, number)) == 0
    return False


def check_ports(ports: Ports, *, receiver_host: str) -> None:
    """See that all ports can be listened at, and the receiver's address.

    Args:
        ports: of the stack.
        receiver_host: the receiver's address or name, as `RECEIVER_HOST` has it.

    Raises:
        StackError: one cannot; it names what to change.
    """
    if ports.receiver.number == ports.ui.number:
        raise StackError(
            f"The receiver and the UI cannot both have port {ports.ui.number}: "
            f"give another with {ports.receiver.given_with} or {ports.ui.given_with}"
        )
    try:
        found = socket.getaddrinfo(receiver_host, None, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise StackError(f"RECEIVER_HOST: {receiver_host!r} is no address or name that is known here") from error
    _check_loopback()
    _check_port(ports.receiver, [(family, str(address[0])) for family, _, _, _, address in found])
    _check_port(ports.ui, [(socket.AF_INET, "127.0.0.1")])


def _check_loopback() -> None:
    try:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            socket.create_connection(probe.getsockname(), timeout=CONNECT_TIMEOUT).close()
    except OSError as error:
        raise StackError(f"This machine cannot reach itself at 127.0.0.1 ({error}): ip link set lo up") from error


def _check_port(port: Port, addresses: Sequence[tuple[int, str]]) -> None:
    taken = f"Port {port.number} is taken: stop what listens there, or give another with {port.given_with}"
    if is_taken(port.number):
        raise StackError(taken)
    for family, address in addresses:
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port.number))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StackError(taken) from error
            if error.errno == errno.EACCES:
                raise StackError(
                    f"Port {port.number} may not be listened at by this user: give one with {port.given_with}"
                ) from error
            raise StackError(f"RECEIVER_HOST: {address} is no address of this machine ({error.strerror})") from error


def url_at(host: str, number: int) -> str:
    """Return the URL at which this machine reaches what listens at an address or name."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            host = "127.0.0.1"  # what listens at `::` is reached so, too
        elif address.version == 6:  # noqa: PLR2004
            host = f"[{host}]"
    return f"http://{host}:{number}"
