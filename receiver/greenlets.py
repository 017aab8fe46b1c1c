"""Views that wait, on an event loop: each request runs in a greenlet, and where it waits the loop goes on with others.

A view stays an ordinary function. No request holds a thread, so none has to be woken for it and they never compete
for the interpreter; what really blocks, a statement to PostgreSQL, goes to one of a few threads.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from greenlet import getcurrent, greenlet

P = ParamSpec("P")
T = TypeVar("T")

_DONE = object()
_idle: list[greenlet] = []  # kept, since a new one has a stack of its own to map


async def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what a function returns that may call `wait_for` and `in_thread`."""
    running = _idle.pop() if _idle else greenlet(partial(_serve, getcurrent()))
    call = partial(function, *args, **kwargs)
    awaited = running.switch(call)
    while awaited is not _DONE:
        try:
            value = await awaited
        except BaseException as error:  # noqa: BLE001 (raised where the function waits, cancellation included)
            awaited = running.throw(error)
        else:
            awaited = running.switch(value)
    result, raised = running.switch()
    _idle.append(running)
    if raised is not None:
        raise raised
    return result  # type: ignore[no-any-return]


def _serve(loop: greenlet, call: Callable[[], Any]) -> None:
    """Make one call after the other, for ever; tell the loop's greenlet of its end, then what came of it."""
    while True:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = call(), None
        except BaseException as error:  # noqa: BLE001 (raised again by `run`)
            outcome = None, error
        loop.switch(_DONE)
        call = loop.switch(outcome)
        del outcome


def wait_for(awaitable: Awaitable[T]) -> T:
    """Return what an awaitable comes to; only below `run`."""
    loop = getcurrent().parent
    if loop is None:
        raise RuntimeError("nothing can be awaited here: call it through run()")
    return loop.switch(awaitable)  # type: ignore[no-any-return]


def in_thread(call: Callable[[], T], *, pool: Executor | None = None) -> T:
    """Return what a call that blocks returns, made by a thread of a pool, or else of the loop's.

    Where there is no loop to hold up it is made at once.
    """
    if getcurrent().parent is None:
        return call()
    return wait_for(asyncio.get_running_loop().run_in_executor(pool, call))
