"""Tell whether a code server can still start runs: `python -m coin_pipeline.code_server.probe [HOST:PORT]`.

Dagster answers its own health check also when it is deaf to everything else: when all its threads wait, or when
something waits that holds the lock of all executions. So this asks for what needs both. Exit status 1 without an answer
in 10 s. It works with plain `dagster api grpc` too, as on Kubernetes.
"""

import os
import sys
from typing import Any

import grpc

TIMEOUT = 10.0  # seconds
WHAT_NEEDS_THE_LOCK = "/api.DagsterApi/GetCurrentRuns"


def answers(address: str, *, timeout: float = TIMEOUT) -> bool:
    """Ask the code server which runs are its own, and return whether it says so in time.

    Args:
        address: `host:port`.
        timeout: seconds.
    """
    with grpc.insecure_channel(address) as channel:
        try:
            ask: Any = channel.unary_unary(WHAT_NEEDS_THE_LOCK)
            ask(b"", timeout=timeout, wait_for_ready=True)
        except grpc.RpcError:
            return False
        return True


def own_address() -> str:
    """Return where the code server of this environment listens, seen from its own machine."""
    host, port = os.environ["DAGSTER_CODE_SERVER_HOST"], os.environ["DAGSTER_CODE_SERVER_PORT"]
    return f"{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 (compared, not bound)


if __name__ == "__main__":
    sys.exit(not answers(sys.argv[1] if sys.argv[1:] else own_address()))
