"""Readers of one store share its memory pages, measured on real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs.data.store import Frames, Store
from jobs.data.writer import StoreWriter
from tests.processes import PATIENCE_S

ROOT = Path(__file__).parents[3]
READERS = 30
SIZE, FRAMES = 64, 1200

#: Forks readers that read the whole store in batches and keep it open, and one that copies it instead.  Prints the
#: growth of each process's private memory in bytes, while all hold the store.
SCRIPT = """
import json, sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import torch

from jobs.data.store import Store

torch.set_num_threads(1)


def read(path, copies):
    store = Store.open(path)
    own = psutil.Process().memory_full_info
    batches, total = np.arange(len(store.images)).reshape(-1, 16), 0.0
    for frames in batches[:3]:  # what the first batches need, all others need again
        store.views(frames[None], store.resolution).images.sum()
    before = own().uss
    kept = np.array(store.images) if copies else None
    for frames in batches:
        total += float(store.views(frames[None], store.resolution).images.sum())
    barrier.wait()
    queue.put((copies, own().uss - before, total))
    barrier.wait()


if __name__ == "__main__":
    path, readers = Path(sys.argv[1]), int(sys.argv[2])
    Store.open(path).views(np.array([[0, 1]]), 32)  # imports what readers import
    context = get_context("fork")
    barrier, queue = context.Barrier(readers + 1), context.Queue()
    children = [context.Process(target=read, args=(path, number == readers)) for number in range(readers + 1)]
    for child in children:
        child.start()
    results = [queue.get(timeout=300) for _ in children]
    for child in children:
        child.join()
    print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("shared") / "store"
    generator = np.random.default_rng(0)
    with StoreWriter(path, FRAMES, "shared") as writer:
        for number in range(FRAMES // 100):
            frames = Frames(
                images=generator.integers(0, 256, (100, 3, SIZE, SIZE), dtype=np.uint8),
                world_to_camera=np.tile(np.eye(4), (100, 1, 1)),
                focal=np.full((100, 2), 70.0),
                principal=np.full((100, 2), 32.0),
            )
            writer.append(frames, name=f"o{number}", split="train", category="c", geometry=f"g{number}")
        facts = {"importer": "t", "options": {}, "source": "s", "licence": "l", "near": 1, "far": 2}
        writer.finish(**facts, background=(1, 1, 1), evaluation={"source_frame": 0})
    return Store.open(path)


def test_thirty_readers_share_the_stores_pages(store):
    # What glibc would keep of freed batches, for the next ones, is given back at once: it is not the store's.
    thresholds = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(store.path), str(READERS)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=ROOT,
        env={**os.environ, **thresholds},
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    growth = {copies: [size / store.images.nbytes for copy, size, _ in results if copy == copies] for copies in (0, 1)}
    assert len(growth[0]) == READERS
    assert max(growth[0]) < 0.05
    assert min(growth[1]) > 0.95, "the measure sees a reader that copies"
    assert len({total for *_, total in results}) == 1, "all have read the same"
