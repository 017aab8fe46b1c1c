"""Functions that wait run on an event loop, many at a time, and end as plain functions do."""

import asyncio
import gc
import threading
import weakref
from contextlib import suppress
from functools import partial

import pytest

from receiver.serving.greenlets import run, wait_for
from receiver.waiting import in_thread


def test_a_function_that_waits_lets_others_run_meanwhile() -> None:
    async def main() -> tuple[str, ...]:
        opened = asyncio.Event()

        def wait() -> str:
            wait_for(opened.wait())
            return "waited"

        def open_() -> str:
            opened.set()
            return "opened"

        return tuple(await asyncio.wait_for(asyncio.gather(run(wait), run(wait), run(open_)), 5))

    assert asyncio.run(main()) == ("waited", "waited", "opened")


def test_an_error_arrives_where_the_function_waits_and_where_it_was_run() -> None:
    async def fail() -> None:
        raise LookupError("away")

    def look() -> None:
        with pytest.raises(LookupError):
            wait_for(fail())
        raise ValueError("bad")

    async def main() -> None:
        for _ in range(3):  # the greenlet that is used again is as good as new
            with pytest.raises(ValueError, match="bad"):
                await run(look)

    asyncio.run(main())


def test_a_function_that_is_cancelled_cleans_up() -> None:
    cleaned = []

    def wait() -> None:
        try:
            wait_for(asyncio.sleep(60))
        finally:
            cleaned.append(True)

    async def main() -> None:
        waiting = asyncio.create_task(run(wait))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert cleaned == [True]


def test_what_blocks_runs_in_another_thread_only_where_there_is_a_loop() -> None:
    async def main() -> threading.Thread:
        return await run(in_thread, threading.current_thread)

    assert asyncio.run(main()) is not threading.current_thread()
    assert in_thread(threading.current_thread) is threading.current_thread()


def test_neither_an_idle_greenlet_nor_an_error_keeps_what_a_function_was_given() -> None:
    class Request:
        pass

    def refuse(_request: Request) -> None:
        raise ValueError("refused")

    def read(request: Request) -> None:
        in_thread(partial(refuse, request))

    async def main() -> list[weakref.ref[Request]]:
        kept = []
        for _ in range(3):
            request = Request()
            kept.append(weakref.ref(request))
            with suppress(ValueError):
                await run(read, request)
            del request
        return kept

    gc.disable()  # which would find a cycle sooner or later; large bodies come sooner
    try:
        assert [kept() for kept in asyncio.run(main())] == [None] * 3
    finally:
        gc.enable()
