"""Pauses garbage collection while many objects are created."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Pauses garbage collection for code that creates thousands of long-lived objects.

    Otherwise every few thousand of them trigger a collection over all loaded objects, torch included, which costs
    more than creating them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
