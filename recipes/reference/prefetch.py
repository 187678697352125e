"""Batches are prepared while the model computes: by a thread, or by processes when a GPU outruns one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from recipes.reference.batches import Batch, Mixer


class _Worker(IterableDataset[Batch]):
    """One mixer per process, each with a seed of its own."""

    def __init__(self, mixer: Mixer) -> None:
        self.mixer = mixer

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        if info is not None:
            self.mixer.rng = np.random.default_rng([int(self.mixer.rng.integers(2**31)), info.id])
        return self.mixer.batches()


def prefetch_in_processes(mixer: Mixer, workers: int) -> Iterator[Batch]:
    """Prepare batches in processes: a GPU takes them faster than one thread draws them (about 300 x real time)."""
    loader = DataLoader(_Worker(mixer), batch_size=None, num_workers=workers, prefetch_factor=4, pin_memory=False)
    return iter(loader)


def prefetch(batches: Iterator[Batch], depth: int = 4) -> Iterator[Batch]:
    """Prepare batches in a thread while the model computes."""
    ready: queue.Queue[Batch | Exception] = queue.Queue(depth)

    def work() -> None:
        try:
            for batch in batches:
                ready.put(batch)
        except Exception as error:  # shown by the consumer instead of dying silently in the thread
            ready.put(error)

    threading.Thread(target=work, daemon=True).start()
    while True:
        item = ready.get()
        if isinstance(item, Exception):
            raise item
        yield item
