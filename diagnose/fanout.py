"""Work side by side that Ctrl-C can end: for probes, which wait for programs and servers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from . import runner

_T = TypeVar("_T")
_R = TypeVar("_R")


def side_by_side(todo: Iterable[_T], work: Callable[[_T], _R], at_once: int) -> Generator[tuple[_T, _R], None, None]:
    """Each item with what `work` gave for it, as they end, at most `at_once` at a time.

    Ctrl-C is not kept waiting: what was not begun never is, programs that run are ended with their process groups,
    and a request that hangs is left to a thread that dies with the process (a pool's threads are waited for at exit).

    Raises:
        BaseException: the first that `work` raised; what still runs is ended.
    """
    waiting = deque(todo)
    ended: SimpleQueue[tuple[_T, _R] | BaseException] = SimpleQueue()

    def turns() -> None:
        while waiting:
            try:
                item = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                ended.put((item, work(item)))
            except BaseException as err:
                ended.put(err)

    runner.resume()
    count = len(waiting)
    for _ in range(min(at_once, count)):
        threading.Thread(target=turns, daemon=True).start()
    try:
        while count:
            with suppress(Empty):  # waiting without an end cannot be interrupted on Windows
                got = ended.get(timeout=0.5)
                count -= 1
                if isinstance(got, BaseException):
                    raise got
                yield got
    except BaseException:
        waiting.clear()
        runner.end_all()
        raise
