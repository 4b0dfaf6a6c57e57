"""Dataset: lengths, one copy to the device, and the right samples from take, split and subset."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from bpxp.backends import Backend, get_backend
from bpxp.data import Dataset, as_dataset
from bpxp.errors import InvalidTypeError, InvalidValueError


@pytest.fixture
def data() -> Dataset:
    x = np.arange(20 * 6, dtype=np.uint8).reshape(20, 2, 3, 1)
    y, weight = np.arange(20) % 4, np.linspace(0.0, 1.0, 20, dtype=np.float32)
    for a in (x, y, weight):
        a.flags.writeable = False
    return Dataset(x, y, weight, name="toy", classes=["a", "b", "c", "d"])


def same(part: Dataset, whole: Dataset, rows: list[int]) -> None:
    """Check that `part` has the samples `rows` of `whole`, a data set on the host."""
    back = (lambda a: a) if part.backend is None else part.backend.to_numpy
    np.testing.assert_array_equal(back(part.x), whole.x[rows])
    np.testing.assert_array_equal(back(part.y), whole.y[rows])
    np.testing.assert_array_equal(back(part.weight), whole.weight[rows])
    assert part.classes == whole.classes


def test_it_holds_what_it_was_given(data: Dataset) -> None:
    assert len(data) == 20
    assert data.backend is None
    assert data.classes == ("a", "b", "c", "d")
    x = np.zeros((3, 2))
    assert Dataset(x, [0, 1, 2]).x is x
    assert Dataset([[1, 2], [3, 4]], [0, 1]).x.shape == (2, 2)
    assert Dataset(x, [0, 1, 2]).weight is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.x = x  # type: ignore[misc]


def test_repr(data: Dataset) -> None:
    assert repr(data) == (
        "Dataset('toy', x=(20, 2, 3, 1) uint8, y=(20,) int64, weight=(20,) float32, 4 classes, 0.0 MB on host)"
    )
    large = Dataset(np.zeros((1000, 784), np.float32), np.zeros((1000, 10), np.float64))
    assert repr(large) == "Dataset('data', x=(1000, 784) float32, y=(1000, 10) float64, 3.2 MB on host)"


def test_repr_on_a_backend(data: Dataset, backend: Backend) -> None:
    assert repr(data.to(backend)) == (
        "Dataset('toy', x=(20, 2, 3, 1) uint8, y=(20,) int32, weight=(20,) float32, 4 classes, 0.0 MB on "
        f"{backend.name})"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.zeros((20, 3)), np.zeros(19, int)), r"20 samples but 19 labels: got x \(20, 3\) and y \(19,\)"),
        ((np.zeros((0, 3)), np.zeros(0, int)), r"0 samples: got shape \(0, 3\)"),
        ((np.zeros((4, 3)), np.zeros(4, int), np.ones(3)), r"weight.*got shape \(3,\), expected \(4,\)"),
        ((np.zeros((4, 3)), np.zeros(4, int), np.ones((4, 1))), r"weight.*got shape \(4, 1\)"),
        (([[1, 2], [3]], [0, 1]), "row 1"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        Dataset(*arguments)


@pytest.mark.parametrize("x", [None, 3.0, "text", np.array([["a"], ["b"]]), np.array([1j, 2]), {"a": 1}])
def test_what_is_no_array_of_numbers_is_refused(x: Any) -> None:
    with pytest.raises(InvalidTypeError, match="Dataset"):
        Dataset(x, [0, 1])


def test_to_moves_everything(data: Dataset, backend: Backend) -> None:
    moved = data.to(backend)
    assert moved.backend is backend
    assert moved.x.dtype == backend.xp.uint8
    assert moved.y.dtype == backend.xp.int32
    assert moved.weight.dtype == backend.xp.float32
    same(moved, data, list(range(20)))
    assert data.backend is None


def test_to_where_it_is_returns_itself(data: Dataset, backend: Backend) -> None:
    moved = data.to(backend.name)
    assert moved.to(backend) is moved
    assert moved.to(backend.name) is moved


def test_to_another_backend(data: Dataset, backend: Backend) -> None:
    same(data.to(backend).to("numpy"), data, list(range(20)))
    same(data.to("numpy").to(backend), data, list(range(20)))


def test_to_shares_arrays_that_are_there(backend: Backend) -> None:
    x, y = backend.asarray(np.zeros((3, 2), np.float32)), backend.asarray(np.arange(3, dtype=np.int32))
    moved = Dataset(x, y).to(backend)
    assert moved.x is x
    assert moved.y is y


def test_to_refuses_targets_beyond_int32(data: Dataset) -> None:
    with pytest.raises(InvalidValueError, match=r"does not fit into int32: got 8589934592.*1 of 20"):
        dataclasses.replace(data, y=(np.arange(20) == 3) * 2**33).to("numpy")
    assert Dataset([[1.0]], np.uint8([200])).to("numpy").y.tolist() == [200]


def test_to_keeps_targets_that_are_no_integers(backend: Backend) -> None:
    for dtype in (np.float32, np.bool_):
        y = np.array([[1, 0], [0, 1]], dtype)
        moved = Dataset([[1.0], [2.0]], y).to(backend)
        np.testing.assert_array_equal(backend.to_numpy(moved.y), y, strict=True)


def test_take(data: Dataset, backend: Backend) -> None:
    rows = [3, 0, 19, 3]
    for whole in (data, data.to(backend)):
        part = whole.take(rows)
        same(part, data, rows)
        assert part.name == "toy"
        assert part.backend is whole.backend
    assert data.take(rows).x.base is None  # not a view: the samples can be freed


@pytest.mark.parametrize("rows", [[20], [-1], [0, 1, 99, -5]])
def test_take_refuses_what_is_out_of_range(data: Dataset, rows: list[int]) -> None:
    with pytest.raises(InvalidValueError, match=r"expected 0\.\.19"):
        data.take(rows)


def test_take_refuses_masks_and_floats(data: Dataset) -> None:
    with pytest.raises(InvalidTypeError, match="flatnonzero"):
        data.take(data.y == 1)
    for rows in ([0.0, 1.0], 3, [[1, 2]]):
        with pytest.raises(InvalidTypeError, match="not a sequence of ints"):
            data.take(rows)


def test_take_of_another_librarys_arrays_says_what_to_do() -> None:
    strict = get_backend("strict")
    data = Dataset(strict.asarray(np.zeros((2, 2))), [0, 1])
    with pytest.raises(InvalidTypeError, match=r"data\.to\(backend\)\.take"):
        data.take([0])


def test_subset(data: Dataset, backend: Backend) -> None:
    part = data.to(backend).subset(7)
    same(part, data, list(range(7)))
    assert part.name == "toy[:7]"
    for n, error in ((0, InvalidValueError), (21, InvalidValueError), (2.5, InvalidTypeError)):
        with pytest.raises(error):
            data.subset(n)  # type: ignore[arg-type]


def test_split_is_a_partition_and_the_same_everywhere(data: Dataset, backend: Backend) -> None:
    rest, part = data.split(0.25, seed=3)
    assert (len(rest), len(part)) == (15, 5)
    rows = [data.x[:, 0, 0, 0].tolist().index(v) for v in [*rest.x[:, 0, 0, 0], *part.x[:, 0, 0, 0]]]
    assert sorted(rows) == list(range(20))
    assert rows[:15] == sorted(rows[:15])
    same(rest, data, rows[:15])
    moved_rest, moved_part = data.to(backend).split(0.25, seed=3)
    same(moved_rest, data, rows[:15])
    same(moved_part, data, rows[15:])
    assert data.split(0.25, seed=4)[1].x.tolist() != part.x.tolist()


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_split_refuses_an_empty_part(data: Dataset, fraction: float) -> None:
    with pytest.raises(InvalidValueError, match=r"0 samples: got 0\.\d+ of 20 samples, parts of"):
        data.split(fraction)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_split_refuses_what_is_no_fraction(data: Dataset, fraction: float) -> None:
    with pytest.raises(InvalidValueError, match="fraction"):
        data.split(fraction)


def test_as_dataset(data: Dataset) -> None:
    assert as_dataset(data) is data
    assert len(as_dataset((data.x, data.y))) == 20
    np.testing.assert_array_equal(as_dataset([data.x, data.y, data.weight]).weight, data.weight)
    for wrong in (data.x, (data.x,), None, "xy", (1, 2, 3, 4)):
        with pytest.raises(InvalidTypeError, match=r"fit\(data\).*a Dataset, \(x, y\) or \(x, y, weight\)"):
            as_dataset(wrong, "fit(data)")


def test_flatten_makes_vectors_of_images(backend: Backend) -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    for data in (Dataset(images, [0, 1]), Dataset(images, [0, 1]).to(backend)):
        flat = data.flatten()
        assert tuple(flat.x.shape) == (2, 12)
        x = flat.x if flat.backend is None else flat.backend.to_numpy(flat.x)
        assert np.array_equal(x, images.reshape(2, 12))
        assert flat.y is data.y


def test_a_backend_may_be_named(data: Dataset, backend: Backend) -> None:
    for given in ("numpy", backend):
        made, moved = Dataset(data.x, data.y, data.weight, backend=given), data.to(given)
        assert made.backend is moved.backend
        for a, b in zip((made.x, made.y, made.weight), (moved.x, moved.y, moved.weight), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(moved.backend.to_numpy(a), moved.backend.to_numpy(b))
    with pytest.raises(ValueError, match="nympy.*BPX-E020"):
        Dataset(data.x, data.y, backend="nympy")
    with pytest.raises(InvalidTypeError, match="not a backend"):
        Dataset(data.x, data.y, backend=7)  # type: ignore[arg-type]
