"""How the application waits: simply, or as a server has it that runs many requests on one event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

# Returns what an awaitable comes to, while the loop serves others; None where there is no loop.
waiter: ContextVar[Callable[[Awaitable[Any]], Any] | None] = ContextVar("waiter", default=None)


def in_thread(call: Callable[[], T], *, pool: Executor | None = None) -> T:
    """Return what a call that blocks returns: made at once, or on a loop by a thread of a pool, else of the loop's."""
    wait_for = waiter.get()
    if wait_for is None:
        return call()
    return wait_for(asyncio.get_running_loop().run_in_executor(pool, call))  # type: ignore[no-any-return]
