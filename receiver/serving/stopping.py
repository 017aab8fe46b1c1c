"""An orderly end: `/readyz` fails first, so that a load balancer sends nothing more, and only then the server stops."""

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from multiprocessing.process import BaseProcess

STOPPING_SIGNAL = signal.SIGUSR1  # tells a worker process that its end is near


def stop_after_drain(seconds: float) -> None:
    """Put off what SIGTERM does in this process, and tell the worker processes at once.

    Call it when the server has installed its own handler.

    Args:
        seconds: to go on serving.
    """
    stop = signal.getsignal(signal.SIGTERM)
    if not callable(stop):
        raise TypeError("SIGTERM has no handler to put off")

    def drain(signal_number: int, _frame: object) -> None:
        for worker in multiprocessing.active_children():
            with suppress(ProcessLookupError):
                os.kill(worker.pid or 0, STOPPING_SIGNAL)
        threading.Timer(seconds, stop, (signal_number, None)).start()

    signal.signal(signal.SIGTERM, drain)


def ignore_stopping_signal() -> None:
    """Have worker processes that have no handler yet survive the signal; they inherit this."""
    signal.signal(STOPPING_SIGNAL, signal.SIG_IGN)


def end_with_parent() -> None:
    """Have this worker process stop when its parent is gone, even killed: it would hold the port for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_stop_after, args=(parent,), name="end-with-parent", daemon=True).start()


def _stop_after(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
