"""Calls that may block for ever (a FIFO without a reader, a pipe that nobody empties) without holding up the end.

The thread of such a call is not waited for when the program ends; the pool of `asyncio.to_thread` is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def in_own_thread(work: Callable[..., T], *arguments: Any) -> T:
    """What `work` returns, or raises. Cancelling leaves the thread to itself."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work(*arguments)
        except Exception as exc:
            error = exc
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="patience", daemon=True).start()
    return await done
