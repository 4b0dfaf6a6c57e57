"""Mini-batches on the device, for your own training loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bpxp.backends import Array, Backend, get_backend
from bpxp.core.random import Seed, normalize_seed
from bpxp.data.dataset import Dataset, as_dataset
from bpxp.data.order import epoch_order, usable_batch_size

Batch = tuple[Array, ...]


class Loader:
    """Iterate over mini-batches; each ``for x, y in loader:`` is the next epoch.

    The data are copied to the device once, or batch by batch with ``Dataset(resident=False)``. The order is the one
    that `Trainer` uses: a pure function of (seed, epoch).

    Parameters
    ----------
    data : Dataset, (x, y) or (x, y, weight)
        With weights, a batch is ``(x, y, weight)``.
    batch_size : int
        Samples per batch; the last one is shorter if N is not a multiple.
    seed : int, SeedSequence, Generator or None, optional
        Of the order.
    shuffle : bool, optional
        False keeps the samples in their order, in every epoch.
    backend : str, Backend or None, optional
        Of the batches. None is the backend of `data`, for data on the host the default of `get_backend`.
    drop_last : bool, optional
        Drop a short last batch.

    Attributes
    ----------
    epoch : int
        The next epoch, from 0. Set it to resume.

    Examples
    --------
    >>> train, test = bpxp.data.digits()
    >>> for x, y in Loader(train, 64):
    ...     net.gradient_descent((x, y), learning_rate=0.5)
    """

    def __init__(
        self,
        data: Dataset | Sequence[Any],
        batch_size: int,
        *,
        seed: Seed = 0,
        shuffle: bool = True,
        backend: str | Backend | None = None,
        drop_last: bool = False,
    ) -> None:
        host = as_dataset(data, "Loader(data)")
        self.batch_size = usable_batch_size(batch_size, len(host), "Loader(batch_size=…)")
        self.seed = normalize_seed(seed, "Loader(seed=…)")
        stays = host.backend is None and host.resident is False
        self.backend = host.backend if backend is None and host.backend is not None else get_backend(backend)
        self.data = host if stays else host.to(self.backend)
        self.shuffle, self.drop_last = shuffle, drop_last
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of batches."""
        n = len(self.data)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        self.epoch += 1
        return self.batches(self.epoch - 1)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of `epoch`, independently of earlier iterations.

        Yields
        ------
        tuple of array
            x of shape (batch, …) in the dtype of the data (uint8 stays uint8); y; weight if there is one.
        """
        backend, n = self.backend, len(self.data)
        order = epoch_order(self.seed, epoch, n, self.batch_size, self.shuffle)
        places = order if self.data.backend is None else backend.asarray(order)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            rows = places[start : min(start + self.batch_size, n)]
            if self.data.backend is None:
                batch = self.data.take(rows).to(backend)
                yield tuple(a for a in (batch.x, batch.y, batch.weight) if a is not None)
            else:
                arrays = [a for a in (self.data.x, self.data.y, self.data.weight) if a is not None]
                yield tuple(backend.xp.take(a, rows, axis=0) for a in arrays)
