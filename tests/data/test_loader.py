"""Loader and the order of the samples: each once per epoch, in an order that depends on integers alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bpxp.backends import Backend
from bpxp.core.random import ORDER, HostRandom
from bpxp.data import Dataset, Loader, digits, epoch_order
from bpxp.errors import BpxpWarning, InvalidTypeError, InvalidValueError

N, BATCH = 23, 5


@pytest.fixture
def data() -> Dataset:
    x = np.repeat(np.arange(N, dtype=np.uint8)[:, None], 3, axis=1)
    x.flags.writeable = False
    return Dataset(x, np.arange(N) + 100, name="rows")


def seen(loader: Loader, epoch: int | None = None) -> list[list[int]]:
    """Return the samples of each batch, having checked that x and y belong together."""
    batches = []
    for x, y in loader if epoch is None else loader.batches(epoch):
        rows = loader.data.backend.to_numpy(x)
        assert rows.dtype == np.uint8
        assert (rows == rows[:, :1]).all()
        np.testing.assert_array_equal(loader.data.backend.to_numpy(y), rows[:, 0].astype(np.int32) + 100, strict=True)
        batches.append(rows[:, 0].tolist())
    return batches


def joined(batches: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(batches))


@pytest.mark.parametrize("n", [1, 4, 5, 6, N])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_epoch_order_is_a_padded_permutation(n: int, batch_size: int) -> None:
    order = epoch_order(7, 2, n, batch_size)
    assert order.dtype == np.int32
    assert len(order) % batch_size == 0
    assert n <= len(order) < n + batch_size
    assert sorted(order[:n]) == list(range(n))
    assert not order[n:].any()
    np.testing.assert_array_equal(order[:n], HostRandom(7, (ORDER, 2)).permutation(n))


def test_epoch_order_depends_on_seed_and_epoch_only() -> None:
    first = epoch_order(7, 2, N, BATCH)
    np.testing.assert_array_equal(epoch_order(7, 2, N, BATCH), first)
    np.testing.assert_array_equal(epoch_order(7, 2, N, 3)[:N], first[:N])
    for other in (epoch_order(8, 2, N, BATCH), epoch_order(7, 3, N, BATCH)):
        assert (other != first).any()
    np.testing.assert_array_equal(epoch_order(7, 2, N, BATCH, shuffle=False)[:N], np.arange(N))


def test_the_order_of_a_seed_is_frozen() -> None:
    assert epoch_order(0, 0, 8, 5).tolist() == [4, 6, 3, 5, 2, 1, 0, 7, 0, 0]


def test_a_loader_follows_epoch_order_on_every_backend(data: Dataset, backend: Backend) -> None:
    loader = Loader(data, BATCH, seed=7, backend=backend)
    assert len(loader) == 5
    for epoch in range(2):
        order = epoch_order(7, epoch, N, BATCH)[:N].tolist()
        batches = seen(loader)
        assert [len(b) for b in batches] == [5, 5, 5, 5, 3]
        assert joined(batches) == order
        assert seen(loader, epoch) == batches


def test_epoch_counts_iterations_and_can_be_set(data: Dataset) -> None:
    loader = Loader(data, BATCH, backend="numpy")
    assert loader.epoch == 0
    first, second = seen(loader), seen(loader)
    assert loader.epoch == 2
    assert first != second
    loader.epoch = 0
    assert [seen(loader), seen(loader)] == [first, second]
    list(loader.batches(9))
    assert loader.epoch == 2


def test_iterations_side_by_side_do_not_disturb_each_other(data: Dataset) -> None:
    loader = Loader(data, BATCH, backend="numpy")
    pairs = list(zip(loader, loader, strict=True))
    for i in (0, 1):
        rows = np.concatenate([pair[i][0][:, 0] for pair in pairs])
        np.testing.assert_array_equal(rows, epoch_order(0, i, N, BATCH)[:N])


def test_without_shuffle(data: Dataset, backend: Backend) -> None:
    loader = Loader(data, BATCH, shuffle=False, backend=backend)
    assert joined(seen(loader)) == list(range(N))
    assert joined(seen(loader)) == list(range(N))


def test_drop_last(data: Dataset) -> None:
    loader = Loader(data, BATCH, drop_last=True, backend="numpy")
    assert len(loader) == 4
    assert joined(seen(loader)) == epoch_order(0, 0, N, BATCH)[:20].tolist()


def test_weights_come_with_the_batch(data: Dataset, backend: Backend) -> None:
    weight = np.arange(N, dtype=np.float32)
    for x, y, w in Loader((data.x, data.y, weight), BATCH, backend=backend):
        assert w.dtype == backend.xp.float32
        np.testing.assert_array_equal(backend.to_numpy(w), backend.to_numpy(x)[:, 0])
        assert y.shape == w.shape


def test_where_the_batches_are(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPXP_BACKEND", "strict")
    assert Loader(data, BATCH).data.backend.name == "strict"
    on_numpy = data.to("numpy")
    assert Loader(on_numpy, BATCH).data is on_numpy
    assert Loader(on_numpy, BATCH, backend="strict").data.backend.name == "strict"


def test_batch_sizes_that_cannot_work(data: Dataset) -> None:
    for size in (0, -5):
        with pytest.raises(InvalidValueError, match=r"batch_size.*>= 1"):
            Loader(data, size)
    for size in (2.5, True, "5"):
        with pytest.raises(InvalidTypeError, match=r"batch_size.*int"):
            Loader(data, size)


def test_a_batch_larger_than_the_data(data: Dataset) -> None:
    with pytest.warns(BpxpWarning, match=r"batch_size 1000 > 23 samples; using 23") as caught:
        loader = Loader(data, 1000, drop_last=True, backend="numpy")
    assert caught[0].filename == __file__
    assert [len(b) for b in seen(loader)] == [23]


def test_a_wrong_seed_names_itself(data: Dataset) -> None:
    with pytest.raises(InvalidTypeError, match=r"Loader\(seed=…\)"):
        Loader(data, BATCH, seed="abc")


def test_the_digits_once_each(backend: Backend) -> None:
    train, _ = digits()
    total = np.zeros((8, 8, 1), np.int64)
    for x, _y in Loader(train, 400, backend=backend):
        total += backend.to_numpy(x).sum(axis=0, dtype=np.int64)
    np.testing.assert_array_equal(total, train.x.sum(axis=0, dtype=np.int64))
