"""Views that wait, on an event loop: each request runs in a greenlet, and where it waits the loop goes on with others.

A view stays an ordinary function. No request holds a thread, so none has to be woken for it and they never compete
for the interpreter; what really blocks, a statement to PostgreSQL, goes to one of a few threads.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from greenlet import getcurrent, greenlet

from receiver.waiting import waiter

P = ParamSpec("P")
T = TypeVar("T")

_DONE = object()
_idle: list[greenlet] = []  # kept, since a new one has a stack of its own to map


async def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what a function returns that waits through `receiver.waiting`."""
    running = _idle.pop() if _idle else _start()
    awaited = running.switch(partial(function, *args, **kwargs))
    while awaited is not _DONE:
        try:
            value = await awaited
        except BaseException as error:  # noqa: BLE001 (raised where the function waits, cancellation included)
            awaited = running.throw(error)
        else:
            awaited = running.switch(value)
    result, raised = running.switch().pop()
    _idle.append(running)
    if raised is not None:
        try:
            raise raised
        finally:
            del raised
    return result  # type: ignore[no-any-return]


def _start() -> greenlet:
    """Return a new greenlet that waits for its first call; what it is started with it would keep for ever."""
    running = greenlet(_serve)
    running.switch(getcurrent())
    return running


def _serve(loop: greenlet) -> None:
    """Make one call after the other, for ever; tell the loop's greenlet of its end, then what came of it."""
    outcomes: list[tuple[Any, BaseException | None]] = []
    waiter.set(wait_for)
    while True:
        call = loop.switch(outcomes)
        try:
            outcomes.append((call(), None))
        except BaseException as error:  # noqa: BLE001 (raised again by `run`)
            outcomes.append((None, error))
        del call  # an idle greenlet keeps nothing of the request that it served last
        loop.switch(_DONE)


def wait_for(awaitable: Awaitable[T]) -> T:
    """Return what an awaitable comes to; only below `run`."""
    try:
        return getcurrent().parent.switch(awaitable)  # type: ignore[no-any-return, union-attr]
    finally:
        del awaitable  # with its error, whose traceback has this frame, it would keep the request in memory
