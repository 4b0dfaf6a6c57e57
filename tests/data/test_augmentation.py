"""Augmentation: each transform on known images, its random numbers, and that only training is augmented."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

import bpxp
import bpxp.core.threefry
from bpxp.backends import get_backend
from bpxp.core.random import make_key
from bpxp.core.tree import tree_map
from bpxp.data import augment as A
from bpxp.data.augment.affine import affine
from bpxp.data.augment.elastic import smoothing
from bpxp.data.augment.mixup import symmetric_beta
from bpxp.data.augment.pixels import normal
from bpxp.data.augment.resample import Motion, places, resample
from bpxp.errors import InvalidTypeError, InvalidValueError

NUMPY = get_backend("numpy")

# Of each transform one that does something.
MOVING = [
    A.Affine(degrees=15, scale=0.2, shear=0.2, shift=2),
    A.Shift(2),
    A.Shift(1.5, subpixel=True),
    A.Flip(),
    A.ElasticDistortion(20.0, 2.5),
]
PIXELS = [A.Noise(0.2), A.Mixup(0.4), A.Cutout(4)]


def name(transform):
    return type(transform).__name__ + ("-subpixel" if getattr(transform, "subpixel", False) else "")


def key_on(backend, seed=1, step=3):
    return tree_map(backend.asarray, make_key(seed, step))


def images_of(rng, batch=6, height=8, width=10, channels=2):
    return rng.random((batch, height, width, channels))


@functools.lru_cache
def compiled(backend_name, transform):
    backend = get_backend(backend_name)
    return backend.compile(lambda state, key: transform(*state, key, xp=backend.xp))


def apply(backend, on, transform, x, *, dtype="float32", seed=1, step=3, y=None):
    y = np.eye(len(x)) if y is None else y
    run = compiled(backend.name, transform)
    x, y = run((on(backend, x, dtype), on(backend, y, dtype)), key_on(backend, seed, step))
    return backend.to_numpy(x), backend.to_numpy(y)


def motion_of(backend, on, *columns):
    return Motion(*(on(backend, c, "float64") for c in np.broadcast_arrays(*map(np.atleast_1d, columns))))


def moved(backend, on, x, motion, **options):
    at = places(motion, *x.shape[1:3], dtype=backend.xp.float64, xp=backend.xp)
    return backend.to_numpy(resample(on(backend, x, "float64"), at, xp=backend.xp, **options))


def shifted(image, down, right):
    """np.roll, with zeros where the other side would come in."""
    out = np.zeros_like(image)
    h, w = image.shape[:2]
    into = slice(max(down, 0), min(h, h + down)), slice(max(right, 0), min(w, w + right))
    out_of = slice(max(-down, 0), min(h, h - down)), slice(max(-right, 0), min(w, w - right))
    out[into] = image[out_of]
    return out


# ---------------------------------------------------------------- resampling


def test_resampling_is_bilinear_interpolation_with_zeros_outside(backend, on, rng):
    x = images_of(rng)
    batch, height, width, channels = x.shape
    at = np.stack([rng.uniform(-3, n + 2, (batch, height * width)) for n in (height, width)])
    at[:, 0, :6] = [[-1.0, 0.0, 3.0, height - 1, height, -40.0], [2.0, -1.0, 3.0, width - 1, 2.0, 1e6]]
    expected = np.zeros((batch, height * width, channels))
    for n, i in np.ndindex(batch, height * width):
        v, u = at[:, n, i]
        for row in range(math.floor(v), math.floor(v) + 2):
            for column in range(math.floor(u), math.floor(u) + 2):
                if 0 <= row < height and 0 <= column < width:
                    expected[n, i] += (1 - abs(v - row)) * (1 - abs(u - column)) * x[n, row, column]
    got = resample(on(backend, x, "float64"), backend.asarray(at.copy()), xp=backend.xp)
    np.testing.assert_allclose(backend.to_numpy(got).reshape(expected.shape), expected, atol=1e-13)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, 0), (0, -2), (-3, 4), (6, 8), (7, 0), (-50, 1)])
def test_a_shift_by_whole_pixels_is_a_roll_with_zeros(backend, on, rng, down, right, whole):
    x = images_of(rng, batch=2)
    got = moved(backend, on, x, motion_of(backend, on, [1, 1], 0, -down, 0, 1, -right), whole=whole)
    np.testing.assert_array_equal(got, np.stack([shifted(image, down, right) for image in x]))


def by_values(backend, on, x, angle=0.0, scale=1.0, shear=0.0, down=0.0, right=0.0):
    columns = (on(backend, np.full(len(x), v), "float64") for v in (angle, scale, shear, down, right))
    return moved(backend, on, x, affine(*columns, xp=backend.xp))


def test_rotation_is_counter_clockwise_and_about_the_centre(backend, on, rng):
    x = images_of(rng, height=6, width=6)  # the centre lies between pixels; below it is a pixel
    for quarter in (1, 2, -1):
        got = by_values(backend, on, x, angle=quarter * np.pi / 2)
        np.testing.assert_allclose(got, np.rot90(x, quarter, axes=(1, 2)), atol=1e-13)


def test_scale_shear_and_shift_by_known_values(backend, on, rng):
    x = images_of(rng, height=9, width=9)
    larger = by_values(backend, on, x, scale=2.0)
    np.testing.assert_allclose(larger[:, ::2, ::2], x[:, 2:7, 2:7], atol=1e-13)
    smaller = by_values(backend, on, x, scale=0.5)
    np.testing.assert_allclose(smaller[:, 2:7, 2:7], x[:, ::2, ::2], atol=1e-13)
    leaning = by_values(backend, on, x, shear=1.0)
    for row in range(9):
        expected = np.stack([shifted(image, 0, 4 - row)[row] for image in x])
        np.testing.assert_allclose(leaning[:, row], expected, atol=1e-13)
    # A shift comes last: it is not turned or stretched with the rest.
    both = by_values(backend, on, x, angle=np.pi / 2, scale=0.5, down=1.0, right=-2.0)
    first = np.rot90(smaller, 1, axes=(1, 2))
    np.testing.assert_allclose(both, np.stack([shifted(image, 1, -2) for image in first]), atol=1e-12)


def test_motions_compose_in_the_order_of_the_images(backend, on, rng):
    x = images_of(rng, height=9, width=9)
    n = len(x)
    turn = affine(*(on(backend, np.full(n, v), "float64") for v in (np.pi / 2, 1.0, 0.0, 0.0, 0.0)), xp=backend.xp)
    move = motion_of(backend, on, np.ones(n), 0, -1, 0, 1, 2)
    turned = np.rot90(x, 1, axes=(1, 2))
    expected = np.stack([shifted(image, 1, -2) for image in turned])
    np.testing.assert_allclose(moved(backend, on, x, move.after(turn)), expected, atol=1e-12)
    expected = np.rot90(np.stack([shifted(image, 1, -2) for image in x]), 1, axes=(1, 2))
    np.testing.assert_allclose(moved(backend, on, x, turn.after(move)), expected, atol=1e-12)


# ---------------------------------------------------------------- all transforms


def test_transforms_that_do_nothing_return_the_input_exactly(backend, on, rng):
    x = images_of(rng).astype(np.float32)
    still = [A.Affine(), A.Noise(0), A.Rotate(0), A.Scale(0), A.Shift(0), A.Noise(0), A.Shift(0, subpixel=True)]
    still += [A.Flip(probability=0), A.ElasticDistortion(0.0), A.Noise(0), A.Compose([])]
    got, _ = apply(backend, on, A.Compose(still), x)
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize("transform", [*MOVING, *PIXELS], ids=name)
def test_a_transform_is_a_function_of_seed_and_step(backend, on, rng, transform):
    x = images_of(rng)
    first, y = apply(backend, on, transform, x)
    again, y_again = apply(backend, on, transform, x)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(y, y_again)
    assert first.shape == x.shape
    assert not np.array_equal(first, x.astype(np.float32))
    for other in ({"step": 4}, {"seed": 2}):
        assert not np.array_equal(first, apply(backend, on, transform, x, **other)[0])
    # A float32 knows the place of a pixel to 1e-6 pixels.
    expected, y_expected = apply(NUMPY, on, transform, x)
    np.testing.assert_allclose(first, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(y, y_expected, atol=1e-5, rtol=0)


def test_every_library_makes_the_same_images(backend, on, rng):
    x = images_of(rng)
    transform = A.Compose(
        [A.Affine(degrees=10, scale=0.1), A.ElasticDistortion(), A.Noise(0.1), A.Rotate(9), A.Cutout(3), A.Mixup(0.4)]
    )
    for got, expected in zip(*(apply(b, on, transform, x, dtype="float64") for b in (backend, NUMPY)), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12, rtol=0)


def test_transforms_that_only_choose_give_the_same_bits_everywhere(backend, on, rng):
    transform, x = A.Compose([A.Shift(2), A.Flip(horizontal=False), A.Cutout(3)]), images_of(rng)
    np.testing.assert_array_equal(apply(backend, on, transform, x)[0], apply(NUMPY, on, transform, x)[0])


def test_equal_transforms_in_different_places_draw_differently(on, rng):
    x, y, key = images_of(rng), np.eye(6), make_key(1, 3)
    for transform in (*MOVING, *PIXELS, A.Rotate(9), A.Scale(0.1)):
        first, second = (transform(x, y, key.at(i), xp=NUMPY.xp)[0] for i in (0, 1))
        assert not np.array_equal(first, second)
    noise, _ = A.Compose([A.Noise(1.0), A.Noise(1.0)])(np.zeros((100, 100)), y, key, xp=NUMPY.xp)
    assert noise.std() == pytest.approx(math.sqrt(2.0), rel=0.03)


@pytest.mark.parametrize("transform", [*MOVING, *PIXELS], ids=name)
def test_inputs_are_only_read(backend, on, rng, transform):
    if backend.name == "jax":
        return  # its arrays cannot be written into
    x, y = on(backend, images_of(rng), "float32"), on(backend, np.eye(6), "float32")
    key = key_on(backend)
    before = [backend.to_numpy(a) for a in (x, y, *key[:3])]
    transform(x, y, key, xp=backend.xp)
    for a, b in zip((x, y, *key[:3]), before, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(a), b)


def test_vectors_are_images_if_the_shape_is_given(backend, on, rng):
    x = images_of(rng, height=6, width=4, channels=3)
    vectors = A.Compose([A.Rotate(9, shape=[6, 4, 3]), A.Cutout(3, shape=(6, 4, 3))])
    got, _ = apply(backend, on, vectors, x.reshape(6, -1))
    expected, _ = apply(backend, on, A.Compose([A.Rotate(9), A.Cutout(3)]), x)
    np.testing.assert_allclose(got.reshape(x.shape), expected, atol=1e-6)


def test_geometric_neighbours_share_one_resampling(on, rng, monkeypatch):
    calls = []

    def counted(*args, **options):
        calls.append(options["whole"])
        return resample(*args, **options)

    monkeypatch.setattr("bpxp.data.augment.geometric.resample", counted)
    x = images_of(rng)
    apply(NUMPY, on, A.Compose([A.Rotate(5), A.ElasticDistortion(), A.Flip(), A.Noise(0.1), A.Shift(1), A.Flip()]), x)
    assert calls == [False, True]


def test_a_bright_middle_keeps_its_mass(on):
    y, x = np.mgrid[-14:14, -14:14] + 0.5
    blob = np.exp(-(y**2 + x**2) / 18.0)[None, :, :, None].repeat(64, axis=0)
    for transform in (A.Rotate(30), A.Shift(2.5, subpixel=True), A.Flip(), A.Shift(3)):
        got, _ = apply(NUMPY, on, transform, blob)
        np.testing.assert_allclose(got.sum(axis=(1, 2, 3)), blob[0].sum(), rtol=0.02)
    got, _ = apply(NUMPY, on, A.ElasticDistortion(), blob)
    assert got.sum() == pytest.approx(blob.sum(), rel=0.1)


# ---------------------------------------------------------------- what is drawn


def drawn(transform, batch=8192):
    xp = NUMPY.xp
    words = bpxp.core.threefry.random_bits(key_on(NUMPY), transform.words(batch, (28, 28, 1)), xp=xp)
    return transform.motion(words, batch, dtype=xp.float32, xp=xp)


def assert_uniform(values, low, high):
    assert low <= values.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < values.max() <= high
    counts, _ = np.histogram(values, bins=8, range=(low, high))
    n = len(values) / 8
    assert ((counts - n) ** 2 / n).sum() < 26  # chi squared of 7 degrees of freedom: 0.05 %


def test_angles_factors_and_shifts_are_uniform():
    motion = drawn(A.Rotate(20))
    assert_uniform(np.degrees(np.arctan2(motion.yx, motion.yy)), -20, 20)
    assert_uniform(1 / drawn(A.Scale(0.25)).yy, 0.75, 1.25)
    motion = drawn(A.Affine(shear=0.3, shift=2.5))
    assert_uniform(motion.xy, -0.3, 0.3)
    assert_uniform(-motion.y0, -2.5, 2.5)
    motion = drawn(A.Shift(1.5, subpixel=True))
    for offset in (motion.y0, motion.x0):
        assert_uniform(-offset, -1.5, 1.5)


def test_the_values_of_an_affine_map_are_independent():
    motion = drawn(A.Affine(degrees=10, scale=0.1, shift=2))
    scale = 1 / np.hypot(motion.yy, motion.yx)
    angle = np.arctan2(motion.yx, motion.yy)
    down = -(motion.yy * motion.y0 + motion.xy * motion.x0) * scale**2
    right = -(motion.yx * motion.y0 + motion.xx * motion.x0) * scale**2
    assert_uniform(down, -2, 2)
    correlation = np.corrcoef([scale, angle, down, right]) - np.eye(4)
    assert abs(correlation).max() < 4 / math.sqrt(8192)


def test_whole_shifts_and_flips_are_drawn_evenly():
    motion = drawn(A.Shift(2))
    for offset in (motion.y0, motion.x0):
        values, counts = np.unique(offset, return_counts=True)
        assert values.tolist() == [-2, -1, 0, 1, 2]
        assert abs(counts - 8192 / 5).max() < 4 * math.sqrt(8192 * 0.16)
    for probability in (0.1, 0.5, 1.0):
        mirrored = (drawn(A.Flip(probability=probability)).xx < 0).mean()
        assert mirrored == pytest.approx(probability, abs=4 * math.sqrt(probability * (1 - probability) / 8192))
    assert (drawn(A.Flip(horizontal=False, probability=1.0)).yy == -1).all()


@pytest.mark.parametrize(("sigma", "height"), [(4.0, 28), (2.5, 20), (1.0, 9)])
def test_displacements_are_a_smooth_random_field(sigma, height):
    transform, xp, shape = A.ElasticDistortion(20.0, sigma), NUMPY.xp, (height, 17, 1)
    words = bpxp.core.threefry.random_bits(key_on(NUMPY), transform.words(600, shape), xp=xp)
    field = transform.field(words, 600, shape, dtype=xp.float64, xp=xp).reshape(2, 600, height, 17)
    std = 20.0 / (2 * sigma * math.sqrt(3 * math.pi))
    assert field.mean() == pytest.approx(0.0, abs=0.1 * std)
    assert field.std() == pytest.approx(std, rel=0.03)
    # The same everywhere, at the border, too; 1200 fields know it to 2 %.
    np.testing.assert_allclose(field.std(axis=(0, 1)), std, rtol=0.1)
    # Smoothed by a Gaussian, white noise has the correlation exp(-lag²/(4 sigma²)).
    lag = int(1.5 * sigma)
    expected = math.exp(-(lag**2) / (4 * sigma**2))
    for a, b in ((field[:, :, lag:], field[:, :, :-lag]), (field[..., lag:], field[..., :-lag])):
        assert (a * b).mean() / std**2 == pytest.approx(expected, abs=0.05)
    assert abs((field[0] * field[1]).mean()) / std**2 < 0.05


@pytest.mark.parametrize("sigma", [1.0, 1.9, 3.0, 4.0, 7.5])
def test_the_coarse_grid_of_noise_cannot_be_seen(backend, sigma):
    g = backend.to_numpy(smoothing(30, sigma, dtype=backend.xp.float64, xp=backend.xp))
    np.testing.assert_allclose((g**2).sum(axis=1), 1 / (2 * math.sqrt(math.pi) * sigma), rtol=2e-4)


def test_noise_is_normal():
    n = normal(make_key(1), (100, 201), dtype=np.float64, xp=NUMPY.xp).ravel()
    assert n.mean() == pytest.approx(0.0, abs=4 / math.sqrt(n.size))
    assert n.std() == pytest.approx(1.0, abs=0.02)
    assert (n**4).mean() == pytest.approx(3.0, abs=0.3)
    for bound, inside in ((1.0, 0.6827), (2.0, 0.9545), (3.0, 0.9973)):
        assert (abs(n) < bound).mean() == pytest.approx(inside, abs=0.015)
    half = n[: 2 * (n.size // 2)].reshape(2, -1)
    assert abs(np.corrcoef(half)[0, 1]) < 0.04  # the cosines and sines of the same angles


def test_noise_has_its_standard_deviation(on):
    got, _ = apply(NUMPY, on, A.Noise(0.3), np.full((20, 30), 5.0), y=np.zeros((20, 1)))
    assert got.std() == pytest.approx(0.3, rel=0.1)
    assert got.mean() == pytest.approx(5.0, abs=0.05)


@pytest.mark.parametrize("size", [1, 4])
def test_a_hole_is_a_square_around_any_pixel(backend, on, size):
    height, width = 7, 5
    holes = 1.0 - apply(backend, on, A.Cutout(size), np.ones((700, height, width, 2)))[0]
    np.testing.assert_array_equal(holes[..., 0], holes[..., 1])
    centres = set()
    for hole in holes[..., 0]:
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        np.testing.assert_array_equal(hole, np.outer(hole.any(axis=1), hole.any(axis=0)))
        assert set(hole.ravel()) <= {0.0, 1.0}
        for hit, length in ((rows, height), (columns, width)):
            assert (np.diff(hit) == 1).all()
            assert len(hit) == size or hit[0] == 0 or hit[-1] == length - 1
        centres.add((tuple(rows), tuple(columns)))
    assert len(centres) == height * width


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 3.0])
def test_shares_of_a_mixture_have_the_symmetric_beta_distribution(alpha):
    n = 20000
    s = symmetric_beta(make_key(1), alpha, n, dtype=np.float32, xp=NUMPY.xp).astype(np.float64)
    assert s.min() >= 0.0
    assert s.max() <= 1.0
    variance = 1 / (4 * (2 * alpha + 1))
    fourth = 3 * variance**2 * (2 * alpha + 1) / (2 * alpha + 3)
    assert s.mean() == pytest.approx(0.5, abs=4 * math.sqrt(variance / n))
    assert s.var() == pytest.approx(variance, rel=0.03)
    assert ((s - 0.5) ** 4).mean() == pytest.approx(fourth, rel=0.05)
    if alpha == 1.0:
        assert_uniform(s, 0, 1)
    if alpha == 0.5:  # the arcsine distribution
        assert_uniform(np.arcsin(np.sqrt(s)) * 2 / np.pi, 0, 1)


def test_mixup_mixes_inputs_and_targets_alike(backend, on, rng):
    batch = 8
    rows = np.eye(batch)
    for step in range(20):
        x, y = apply(backend, on, A.Mixup(1.0), rows.reshape(batch, 2, 2, 2), y=rows, step=step)
        np.testing.assert_array_equal(x.reshape(batch, batch), y)  # a sample is its own target here
        np.testing.assert_allclose(y.sum(axis=1), 1.0, atol=1e-6)
        partner = np.argmax(y - rows * y, axis=1)
        assert len({*((partner - np.arange(batch)) % batch)}) == 1  # one turn for all, and never a sample with itself
        assert (y.max(axis=1) < 1.0).any()
    one, _ = apply(backend, on, A.Mixup(1.0), rows[:1], y=rows[:1])
    np.testing.assert_array_equal(one, rows[:1])


# ---------------------------------------------------------------- compiled


def test_a_traced_key_is_traced_once(on, rng):
    jax = pytest.importorskip("jax")
    backend, traces = get_backend("jax"), []
    transform = A.Compose([A.Rotate(9), A.ElasticDistortion(), A.Noise(0.1), A.Mixup()])

    @jax.jit
    def run(x, y, k0, k1, step):
        traces.append(1)
        return transform(x, y, bpxp.core.threefry.Key(k0, k1, step), xp=backend.xp)

    x = images_of(rng)
    for step in range(3):
        got = run(on(backend, x, "float32"), on(backend, np.eye(6), "float32"), *key_on(backend, step=step)[:3])
        for a, b in zip(got, apply(NUMPY, on, transform, x, step=step), strict=True):
            np.testing.assert_allclose(backend.to_numpy(a), b, atol=1e-5)
    assert len(traces) == 1


# ---------------------------------------------------------------- wrong values


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: A.Rotate("10"), InvalidTypeError, r"Rotate\(degrees=…\): not a number"),
        (lambda: A.Rotate(-1), InvalidValueError, r"\[0, 180\]"),
        (lambda: A.Scale(1.0), InvalidValueError, r"Scale\(fraction=…\): out of range"),
        (lambda: A.Affine(scale=1.0), InvalidValueError, r"Affine\(scale=…\)"),
        (lambda: A.Affine(shift=math.nan), InvalidValueError, r"Affine\(shift=…\)"),
        (lambda: A.Shift(1.5), InvalidValueError, r"Fix: Shift\(1.5, subpixel=True\)"),
        (lambda: A.Flip(0.5), InvalidTypeError, r"Fix: Flip\(probability=0.5\)"),
        (lambda: A.Flip(probability=2), InvalidValueError, r"\[0, 1\]"),
        (lambda: A.ElasticDistortion(sigma=0.5), InvalidValueError, r"sigma"),
        (lambda: A.Cutout(0), InvalidValueError, r"Cutout\(size=…\): must be >= 1"),
        (lambda: A.Noise(-0.1), InvalidValueError, r"Noise"),
        (lambda: A.Mixup(0), InvalidValueError, r"Mixup\(alpha=…\)"),
        (lambda: A.Rotate(1, shape=(28, 28)), InvalidTypeError, r"not the shape of an image"),
        (lambda: A.Cutout(1, shape=(28, 28, 0)), InvalidValueError, r"Cutout\(shape=…\)"),
        (lambda: A.Compose(A.Rotate(1)), InvalidTypeError, r"not a sequence of transforms"),
        (lambda: A.Compose([A.Noise(0.1), A.Rotate]), InvalidTypeError, r"\[1\] is not a transform: got Rotate"),
        (lambda: A.Compose([3]), InvalidTypeError, r"\[0\] is not a transform: got int"),
    ],
)
def test_wrong_values_are_refused_where_they_are_written(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_wrong_shapes_are_refused(rng):
    x, y, key = np.zeros((2, 784), np.float32), np.eye(2, dtype=np.float32), make_key(0)
    for transform in (A.Rotate(1), A.Cutout(2)):
        with pytest.raises(InvalidValueError, match=r"the samples are not images: got samples of shape \(784,\)"):
            transform(x, y, key, xp=NUMPY.xp)
    with pytest.raises(InvalidValueError, match="8 × 8 × 1 has 64 numbers: got samples of shape"):
        A.Rotate(1, shape=(8, 8, 1))(x, y, key, xp=NUMPY.xp)
    with pytest.raises(InvalidTypeError, match="class indices cannot be mixed"):
        A.Mixup()(x, np.zeros(2, np.int32), key, xp=NUMPY.xp)


# ---------------------------------------------------------------- in training


@pytest.fixture(scope="module")
def digits():
    train, test = bpxp.data.digits()
    return train.take(range(120)), test.take(range(50))


SHAPE = (8, 8, 1)
LIST = [A.Affine(degrees=5, shift=0.5, shape=SHAPE), A.ElasticDistortion(3.0, 2.0, shape=SHAPE), A.Noise(0.05)]


def fit(backend, data, augment=(), epochs=2, optimizer=None, net=None, **options):
    net = net or bpxp.Network([64, 12, 10], backend=backend, seed=3)
    trainer = bpxp.Trainer(net, optimizer or bpxp.optim.SGD(0.3), progress=False)
    return net, trainer.fit(data, epochs=epochs, batch_size=32, augment=augment, **options)


def flat(net):
    return np.concatenate([net.backend.to_numpy(a).ravel() for own in net.params for a in own])


def test_training_is_augmented_and_evaluation_is_not(backend, digits):
    train, test = digits
    # Nothing is learned: what is evaluated is the same, the loss in training is that of other images.
    still = bpxp.optim.SGD(1e-30)
    _, a = fit(backend, train, optimizer=still, validation=test)
    net, b = fit(backend, train, LIST, optimizer=still, validation=test, evaluate_train=True)
    assert b[-1]["validation_loss"] == a[-1]["validation_loss"]
    assert b[-1]["train_loss"] == pytest.approx(a[-1]["loss"], rel=1e-5)
    assert b[-1]["loss"] != pytest.approx(a[-1]["loss"], rel=1e-4)
    assert b[0]["loss"] != b[1]["loss"]  # each epoch sees other images
    assert net.evaluate(test)["loss"] == a[-1]["validation_loss"]


def test_augmented_digits_are_learned():
    train, test = bpxp.data.digits()
    _, history = fit("numpy", train, LIST, epochs=10, optimizer=bpxp.optim.Adam(0.01), validation=test)
    assert history[-1]["validation_accuracy"] > 0.9


def test_transforms_that_do_nothing_change_nothing_with_a_short_last_batch(backend, digits):
    train, _ = digits  # 120 samples in batches of 32: eight rows of the last one are padding
    plain, history = fit(backend, train)
    still, other = fit(backend, train, [A.Affine(shape=SHAPE), A.Noise(0.0)])
    np.testing.assert_allclose(flat(still), flat(plain), rtol=1e-6, atol=1e-7)
    assert other[-1]["loss"] == pytest.approx(history[-1]["loss"], rel=1e-6)


def test_mirrored_digits_are_learned_as_such(backend, digits):
    # 20 samples in batches of 8: four rows of the last one are padding, and count nothing here and there.
    x, y = digits[0].x.reshape(120, 8, 8)[:20], digits[0].y[:20]
    nets = [bpxp.Network([64, 12, 10], backend=backend, seed=3) for _ in range(2)]
    for net, images, augment in zip(
        nets, (x, x[:, :, ::-1]), ([A.Flip(probability=1.0, shape=SHAPE)], []), strict=True
    ):
        bpxp.Trainer(net, progress=False).fit((images, y), epochs=1, batch_size=8, augment=augment)
    np.testing.assert_allclose(flat(nets[0]), flat(nets[1]), rtol=1e-6, atol=1e-7)


def test_resuming_goes_on_with_the_random_numbers(backend, digits, tmp_path):
    train, _ = digits
    noise = [A.Noise(0.2)]
    once, _ = fit(backend, train, noise, epochs=3)
    often, _ = fit(backend, train, noise, epochs=1)
    often.save(tmp_path / "net.bpxp")
    loaded = bpxp.Network.load(tmp_path / "net.bpxp", backend=backend)
    for net in (often, loaded):
        assert net._steps == 4
        fit(backend, train, noise, epochs=2, net=net)
        np.testing.assert_allclose(flat(net), flat(once), rtol=1e-6, atol=1e-7)


def test_mixup_trains_from_class_indices(backend, digits):
    train, test = digits
    adam, augment = bpxp.optim.Adam(0.02), [A.Mixup(0.2)]
    _, history = fit(backend, train, augment, epochs=15, optimizer=adam, evaluate_train=True, validation=test)
    assert history[-1]["train_accuracy"] > 0.8
    assert history[-1]["loss"] > history[-1]["train_loss"]  # a mixture is harder


def test_mixup_takes_rows_as_they_are(digits):
    train, _ = digits
    rows = train.x, np.eye(10)[train.y]
    (net, _), (other, _) = (fit("numpy", data, [A.Mixup(0.2)]) for data in (train, rows))
    np.testing.assert_allclose(flat(other), flat(net), rtol=1e-6)


def test_equal_transforms_share_a_compiled_step(digits):
    train, _ = digits
    net, _ = fit("numpy", train, LIST, epochs=1)
    size = len(net._compiled)
    fit("numpy", train, [A.Affine(degrees=5, shift=0.5, shape=list(SHAPE)), *LIST[1:]], epochs=1, net=net)
    assert len(net._compiled) == size
    fit("numpy", train, LIST[:2], epochs=1, net=net)
    assert len(net._compiled) == size + 1


def test_a_function_of_ones_own_may_be_a_transform(digits):
    train, _ = digits
    seen = []

    def negative(x, y, key, /, *, xp):
        seen.append((x.max(), int(key.step[0]), key.place))
        return 1.0 - x, y

    fit("numpy", train, [A.Noise(0.0), negative], epochs=1)
    assert [step for _, step, _ in seen] == [0, 1, 2, 3]
    assert all(0.9 < top <= 1.0 for top, _, _ in seen)  # pixels are scaled before


def test_without_augmentation_there_is_no_key(digits):
    net, _ = fit("numpy", digits[0], epochs=1)
    assert net.key == ()


def test_fit_refuses_what_does_not_fit_before_anything_is_done(digits):
    net = bpxp.Network([64, 12, 10], backend="numpy", seed=3)
    trainer = bpxp.Trainer(net, progress=False)
    for augment, error, says in [
        ([A.Rotate(3)], InvalidValueError, r"Rotate\(shape=…\): the samples are not images"),
        ([A.Compose([A.Cutout(3, shape=(28, 28, 1))])], InvalidValueError, "28 × 28 × 1 has 784 numbers"),
        (A.Noise(0.1), InvalidTypeError, "not a sequence of transforms"),
        (["flip"], InvalidTypeError, r"fit\(augment=…\): \[0\] is not a transform: got str"),
    ]:
        with pytest.raises(error, match=says):
            trainer.fit(digits[0], epochs=1, augment=augment)
    assert net.epoch == 0
    assert not net.training
