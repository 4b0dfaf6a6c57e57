"""Windows: pairs and paddings, index tables and their inverses, and blocks of a batch that fit the workspace."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

import bpxp.backends
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.nn import window_tables, window_views, windows
from bpxp.nn.windows import Axis, Grid

XP = bpxp.backends.get_backend("numpy").xp


def namespace(**own):
    """NumPy's namespace without what it keeps and what it tells of memory, unless said here."""
    plain = {name: value for name, value in vars(XP).items() if name not in ("memo", "workspace")}
    return SimpleNamespace(**{**plain, **own})


# ---------------------------------------------------------------- what is asked for


def test_a_pair_is_an_int_or_two():
    assert windows.pair(np.int64(3), "here") == (3, 3)
    assert windows.pair([2, np.int64(3)], "here") == (2, 3)
    assert all(type(n) is int for n in (*windows.pair(np.int64(3), "here"), *windows.pair([2, np.int64(3)], "here")))
    for value in (0, (0, 1), (1, 0), (1,), (1, 2, 3), ()):
        with pytest.raises(InvalidValueError, match="^here: "):
            windows.pair(value, "here")
    for value in (1.0, (1.0, 1), (1, 1.0), "11", None, True):
        with pytest.raises(InvalidTypeError, match="^here: "):
            windows.pair(value, "here")


@pytest.mark.parametrize(
    ("value", "ends"),
    [
        ("valid", "valid"),
        ("same", "same"),
        (0, ((0, 0), (0, 0))),
        (np.int64(2), ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, (2, 0)], ((1, 1), (2, 0))),
        ((np.int64(0), [np.int64(1), 3]), ((0, 0), (1, 3))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
    ],
    ids=repr,
)
def test_a_padding_is_said_for_every_edge(value, ends):
    found = windows.padding(value, "here")
    assert found == ends
    assert isinstance(found, str) or all(type(n) is int for side in found for n in side)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        *((value, InvalidValueError) for value in ("full", "", -1, (0, -1), (-1, 0), ((0, 0), (0, -1)), ((-1, 0), 0))),
        *((value, InvalidTypeError) for value in (True, 1.0, None, (1,), (1, 2, 3), (), {1: 2, 3: 4})),
        *((value, InvalidTypeError) for value in ((1, 1.0), (1, True), ((1, 2, 3), 1), ((1, 2), (1,)), ((1, None), 1))),
        *((value, InvalidTypeError) for value in (("same", "same"), (1, "1"))),
    ],
    ids=repr,
)
def test_what_is_no_padding_is_refused(value, error):
    with pytest.raises(error, match="^here: not a padding: got "):
        windows.padding(value, "here")


@pytest.mark.parametrize(
    ("axis", "lacking"),
    [(Axis(4, 5, 1, 1, 0, 0, 0), 1), (Axis(2, 3, 2, 4, 1, 2, -1), 4), (Axis(3, 2, 1, 7, 2, 0, -2), 3)],
)
def test_missing_padding_is_in_the_message(axis, lacking):
    fits = Axis(9, 3, 1, 1, 0, 0, 7)
    assert windows.validate(Grid(fits, fits), "here") == Grid(fits, fits)
    for name, grid in {"height": Grid(axis, fits), "width": Grid(fits, axis)}.items():
        with pytest.raises(InvalidValueError, match=f"^here: .*: {name} out = .*, or {lacking} more pixels of padding"):
            windows.validate(grid, "here")


def test_a_sample_is_an_image():
    assert windows.image_shape((4, 5, 3), "here") == (4, 5, 3)
    for shape in ((4, 5), (4, 5, 3, 1), ()):
        with pytest.raises(InvalidValueError, match="^here: a sample is an image"):
            windows.image_shape(shape, "here")


def test_padding_at_one_edge_is_padding():
    for ends in itertools.product((0, 1), repeat=4):
        top, bottom, left, right = ends
        grid = windows.grid((5, 6), (2, 2), (1, 1), (1, 1), ((top, bottom), (left, right)))
        assert windows.has_padding(grid) == any(ends)


# ---------------------------------------------------------------- index tables

GRIDS = [
    windows.grid((height, width), kernel, stride, dilation, padding)
    for (height, width), kernel, stride, dilation, padding in [
        ((4, 5), (2, 3), (1, 1), (1, 1), "valid"),
        ((4, 5), (3, 2), (1, 1), (1, 1), "same"),
        ((6, 5), (2, 2), (2, 2), (1, 1), "valid"),
        ((5, 7), (3, 3), (2, 2), (1, 1), ((1, 0), (0, 2))),
        ((7, 6), (5, 3), (2, 3), (1, 1), ((2, 1), (1, 1))),
        ((5, 5), (2, 2), (3, 4), (1, 1), ((1, 1), (0, 0))),
        ((6, 8), (2, 3), (1, 2), (3, 2), ((1, 1), (2, 2))),
        ((7, 3), (3, 1), (3, 1), (2, 5), ((0, 3), (0, 0))),
    ]
]


def sight(axis):
    """(window, tap, pixel or None) of all windows and taps along an axis."""
    for window, tap in itertools.product(range(axis.out), range(axis.kernel)):
        pixel = window * axis.stride + tap * axis.dilation - axis.before
        yield window, tap, pixel if 0 <= pixel < axis.n else None


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("memo", [False, True], ids=["", "kept"])
def test_the_tables_are_inverse_to_each_other(grid, memo):
    rows, columns = grid
    xp = namespace(memo={}) if memo else namespace()
    seen, inverse = window_tables.pixels_of_windows(grid, xp=xp), window_tables.inverse_windows(grid, xp=xp)
    assert seen.dtype == np.int32
    assert {way.dtype for way in inverse} == {np.dtype(np.int32)}
    taps, count = rows.kernel * columns.kernel, rows.out * columns.out
    absent = count * taps
    own, back = np.full(absent, rows.n * columns.n), [set() for _ in range(rows.n * columns.n)]
    for (o, i, h), (p, j, w) in itertools.product(sight(rows), sight(columns)):
        place = (o * columns.out + p) * taps + i * columns.kernel + j
        if h is not None and w is not None:
            own[place] = h * columns.n + w
            back[h * columns.n + w].add(place)
    np.testing.assert_array_equal(seen, own)
    found = np.stack(inverse)
    ways = [a.kernel if a.dilation > 1 else -(-a.kernel // a.stride) for a in grid]
    assert found.shape == (ways[0] * ways[1], rows.n * columns.n)  # as few gathers as there can be
    for pixel, places in enumerate(back):
        named = [place for place in found[:, pixel] if place != absent]
        assert len(named) == len(set(named))
        assert set(named) == places
    assert windows.tiling(grid) == (len(found) == 1 and absent not in found)
    window, tap = found // taps, found % taps
    in_a_row = count if windows.tiling(grid) else count + 1
    np.testing.assert_array_equal(np.stack(window_tables.windows_of_pixels(grid, xp=xp)), window)
    np.testing.assert_array_equal(np.stack(window_tables.inverse_windows_by_tap(grid, xp=xp)), tap * in_a_row + window)


def test_a_table_is_made_once_where_there_is_a_memo():
    xp, plain = namespace(memo={}), namespace()
    tables = (
        window_tables.pixels_of_windows,
        window_tables.inverse_windows,
        window_tables.inverse_windows_by_tap,
        window_tables.windows_of_pixels,
    )
    for table, grid in itertools.product(tables, GRIDS):
        assert table(grid, xp=xp) is table(grid, xp=xp)
        assert table(grid, xp=plain) is not table(grid, xp=plain)
    assert len(xp.memo) == 4 * len(GRIDS)


def test_a_table_is_made_with_another_namespace_where_one_is_given():
    asked = []

    def arange(*args, **options):
        asked.append(args)
        return XP.arange(*args, **options)

    xp = namespace(memo={}, tables=namespace(arange=arange))
    first = window_tables.pixels_of_windows(GRIDS[0], xp=xp)
    assert asked
    asked.clear()
    assert window_tables.pixels_of_windows(GRIDS[0], xp=xp) is first
    assert not asked


@pytest.mark.parametrize("grid", GRIDS)
def test_what_windows_give_back_is_gathered_by_the_pixels(grid, rng):
    xp, (rows, columns) = namespace(), grid
    given = rng.standard_normal((2, rows.out * columns.out + 1, rows.kernel * columns.kernel, 3))
    given[:, -1, ...] = 0.0
    expected = np.zeros((2, rows.n, columns.n, 3))
    for (o, i, h), (p, j, w) in itertools.product(sight(rows), sight(columns)):
        if h is not None and w is not None:
            expected[:, h, w, :] += given[:, o * columns.out + p, i * columns.kernel + j, :]
    flat = given.reshape(2, -1, 3)
    found = window_tables.sum_of_gathers(flat, window_tables.inverse_windows(grid, xp=xp), xp=xp)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-13, atol=1e-14)
    assert (
        window_tables.sum_of_gathers(flat.astype(np.float32), window_tables.inverse_windows(grid, xp=xp), xp=xp).dtype
        == np.float32
    )


def test_windows_rotated_twice_are_what_they_were():
    for grid in GRIDS:
        if all(axis.stride == 1 for axis in grid):
            rotated = windows.rotated(grid)
            assert [(axis.n, axis.out) for axis in rotated] == [(axis.out, axis.n) for axis in grid]
            assert windows.rotated(rotated) == grid


def test_a_row_of_zeros_stands_behind_the_last(rng):
    rows = rng.standard_normal((2, 3, 4)).astype(np.float32)
    found = window_tables.with_zeros(rows, xp=XP)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.concatenate([rows, np.zeros((2, 1, 4))], axis=1))


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("workspace", "numbers", "dtype", "size"),
    [
        (1000, 100, "float32", 2),
        (1199, 100, "float32", 2),
        (1200, 100, "float32", 3),
        (1200, 100, "float64", 1),
        (5599, 100, "float64", 6),
        (5600, 100, "float64", 7),
        (99, 100, "float32", 1),
        (0, 100, "float32", 1),
        (None, 8 << 20, "float32", 2),  # 64 MiB
        (None, 8 << 20, "float64", 1),
    ],
)
def test_a_block_is_as_many_samples_as_fit(workspace, numbers, dtype, size):
    xp = namespace() if workspace is None else namespace(workspace=workspace)
    found = window_views.blocks(7, numbers, getattr(np, dtype), xp=xp)
    assert [(block.start, block.stop) for block in found] == [(i, min(i + size, 7)) for i in range(0, 7, size)]


def test_blocks_are_joined_in_their_order(rng):
    batch = rng.standard_normal((5, 2))
    for cuts in ([], [2], [1, 4]):
        np.testing.assert_array_equal(window_views.joined(np.split(batch, cuts), xp=XP), batch)
