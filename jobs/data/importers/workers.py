"""Reads objects in several processes, and returns them in order."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future

from loky import ProcessPoolExecutor
from loky.backend import get_context
from loky.process_executor import BrokenProcessPool

from jobs.data.importers.base import Importer, ImportFailedError, Item, UnreadableObjectError
from jobs.data.store import Frames

#: Objects read ahead of the writer, per process: enough to keep them busy, few enough to fit in memory.
_AHEAD = 4


def load_in_order(
    importer: Importer, items: Sequence[Item], workers: int
) -> Generator[tuple[Item, Frames | str], None, None]:
    """Items in order, each with its images or the reason why it is unreadable, read in `workers` processes."""
    if workers == 1:
        yield from ((item, _load(importer, item)) for item in items)
        return
    # loky's processes start clean, where forking one that has run torch or Ray threads may deadlock, and do not
    # import the main module again, so that scripts need no `if __name__ == "__main__":`.
    with ProcessPoolExecutor(
        workers, context=get_context("loky"), initializer=_die_with, initargs=(os.getpid(),)
    ) as pool:
        waiting: deque[tuple[Item, Future]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(_load, importer, item)))
                if len(waiting) > _AHEAD * workers:
                    yield _finished(waiting)
            while waiting:
                yield _finished(waiting)
        except BaseException:
            pool.shutdown(kill_workers=True)
            raise


def _finished(waiting: deque[tuple[Item, Future]]) -> tuple[Item, Frames | str]:
    item, future = waiting.popleft()
    try:
        return item, future.result()
    except BrokenProcessPool as error:
        suspects = ", ".join(repr(other.name) for other in (item, *(other for other, _ in waiting)))
        raise ImportFailedError(f"a process that was reading one of {suspects} died: {error}") from error


def _load(importer: Importer, item: Item) -> Frames | str:
    """An object's images, or the reason why it is unreadable."""
    try:
        return importer.load(item)
    except UnreadableObjectError as error:
        return str(error)
    except Exception as error:
        error.add_note(f"(while the object {item.name!r} was read)")
        raise


def _die_with(parent: int) -> None:
    """Ends this process soon after its parent, which may have been killed without notice."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
