"""Random bits: the known answers of Random123, the same bits everywhere, and no stream used twice."""

from __future__ import annotations

import hashlib
import itertools
import math
import types

import numpy as np
import pytest

from bpxp.backends import get_backend
from bpxp.core.random import MASK, HostRandom, key_words, make_key
from bpxp.core.threefry import LEVELS, Key, bernoulli, level, place_words, random_bits, signed, threefry, uniform
from bpxp.errors import InvalidValueError

# (key, counter, output), from the test vectors of the Random123 library, kat_vectors, "threefry 2 32 20"
KNOWN = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]
# Of seed 0, and SHA-256 of 1001 words, of a mask and of uniform numbers (101, 37) of seed 2026, step 7, place 1, 2.
GOLDEN_WORDS = (1216546553, -399230508)
GOLDEN = {
    "bits": "95a40430527b07cb4e176a1e09eee6bed43f4aa6f3719328849ee5c096c576ec",
    "mask": "eb7d1d7cbd7b13cd92d83d6f2044b03cc6597fec4399518c313241629e071eb2",
    "uniform": "7a464b715aed6a14dcd25cf14cf211bc8e7a046b32e5aefc2aef3428e933f011",
}


def by_definition(key, counter):
    """One block in unbounded integers, written from the paper."""
    word, keys = 2**32, (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x0, x1 = (counter[0] + key[0]) % word, (counter[1] + key[1]) % word
    for i in range(20):
        r = (13, 15, 26, 6, 17, 29, 16, 24)[i % 8]
        x0 = (x0 + x1) % word
        x1 = ((x1 << r | x1 >> (32 - r)) % word) ^ x0
        if i % 4 == 3:
            j = i // 4 + 1
            x0, x1 = (x0 + keys[j % 3]) % word, (x1 + keys[(j + 1) % 3] + j) % word
    return x0, x1


def words(backend, *values):
    return [backend.asarray(np.array([signed(v) for v in np.atleast_1d(value)], np.int32)) for value in values]


def on_device(backend, key):
    return Key(*(backend.asarray(a) for a in key[:3]), key.place)


def unsigned(backend, a):
    return backend.to_numpy(a).view(np.uint32)


@pytest.mark.parametrize(("key", "counter", "output"), KNOWN)
def test_known_answers(key, counter, output, backend):
    own = words(backend, *key, *counter)
    eager = threefry(*own, xp=backend.xp)
    compiled = backend.compile(lambda _, data: threefry(*data, xp=backend.xp))((), own)
    for found in (eager, compiled):
        assert tuple(int(unsigned(backend, a)[0]) for a in found) == output


def test_definition_has_the_known_answers():
    for key, counter, output in KNOWN:
        assert by_definition(key, counter) == output


def test_every_block_is_the_definition(backend, rng):
    key, counters = rng.integers(0, 2**32, 2), rng.integers(0, 2**32, (2, 41))
    expected = np.array([by_definition(map_int(key), map_int(c)) for c in counters.T])
    own = words(backend, *key, *counters)
    given = [backend.to_numpy(a) for a in own]
    found = threefry(*own, xp=backend.xp)
    for i in range(2):
        np.testing.assert_array_equal(unsigned(backend, found[i]), expected[:, i])
    for before, after in zip(given, own, strict=True):
        np.testing.assert_array_equal(before, backend.to_numpy(after))


def test_blocks_of_many_counters_are_those_of_few(backend):
    # A kernel may work in pieces: their seams are not to be seen.
    k0, k1, step = words(backend, 1, 2, 3)
    n = 20_003
    many = threefry(k0, k1, backend.xp.arange(n, dtype=backend.xp.int32), step, xp=backend.xp)
    picked = [0, 1, 8191, 8192, 8193, 16383, 16384, n - 1]
    few = threefry(k0, k1, backend.asarray(np.array(picked, np.int32)), step, xp=backend.xp)
    for a, b in zip(many, few, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(a)[picked], backend.to_numpy(b))


def test_kernels_have_the_bits_of_the_portable_form(backend, rng):
    assert hasattr(backend.xp, "threefry") or backend.name not in ("numpy", "torch")
    if not hasattr(backend.xp, "threefry"):
        return  # the portable form is what all the other tests here are about
    bare = types.SimpleNamespace(**{k: v for k, v in vars(backend.xp).items() if k != "threefry"})
    for n in (1, 8191, 8192, 8193):
        own = words(backend, *rng.integers(0, 2**32, 2), rng.integers(0, 2**32, n), rng.integers(0, 2**32))
        for a, b in zip(threefry(*own, xp=backend.xp), threefry(*own, xp=bare), strict=True):
            assert a.dtype == b.dtype == backend.xp.int32
            np.testing.assert_array_equal(backend.to_numpy(a), backend.to_numpy(b))


def test_a_kernel_of_a_backend_is_what_runs(backend):
    xp = types.SimpleNamespace(**{**vars(backend.xp), "threefry": lambda *given: given})
    own = words(backend, 1, 2, 3, 4)
    assert all(a is b for a, b in zip(threefry(*own, xp=xp), own, strict=True))


def map_int(values):
    return tuple(int(v) for v in values)


def test_words_of_a_seed_do_not_change():
    assert key_words(0) == GOLDEN_WORDS
    assert key_words(0) != key_words(1)
    assert key_words(2**100) != key_words(0)
    key = make_key(0, step=5)
    assert [int(a[0]) for a in key[:3]] == [*GOLDEN_WORDS, 5]
    assert all(a.dtype == np.int32 and a.shape == (1,) for a in key[:3])
    # and are not the first words of another use of the seed
    assert key_words(0)[0] != signed(int(HostRandom(0, (MASK,)).bits(1)[0]))


def test_no_two_places_share_their_words():
    numbers = (0, 1, 2, 126, 127, 128, 255, 383, 16382, 16383)
    places = [p for n in range(4) for p in itertools.product(numbers, repeat=n) if n < 3 or max(p) < 16383]
    assert len({place_words(p) for p in places}) == len(places)
    assert place_words(()) == (0, 0)
    # 301 = 2 · 128 + 45 is written in two bytes, of which the first says that one follows.
    assert place_words((0, 300)) == (0x01_82_2D, 0)
    assert place_words((0,) * 8) != place_words((0,) * 7)
    for place in ((0,) * 9, (-1,), (2**60,)):
        with pytest.raises(InvalidValueError, match="nested too deeply"):
            place_words(place)


def draw(name, key, xp):
    return {
        "bits": lambda: random_bits(key, 1001, xp=xp),
        "mask": lambda: bernoulli(key, (101, 37), 0.7, dtype=xp.float32, xp=xp),
        "uniform": lambda: uniform(key, (101, 37), dtype=xp.float32, xp=xp),
    }[name]()


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bits(name, backend):
    key = on_device(backend, make_key(2026, step=7))
    found = draw(name, key.at(1).at(2), backend.xp)
    assert hashlib.sha256(backend.to_numpy(found).tobytes()).hexdigest() == GOLDEN[name]
    compiled = backend.compile(lambda _, own: draw(name, own.at(1, 2), backend.xp))((), key)
    np.testing.assert_array_equal(backend.to_numpy(compiled), backend.to_numpy(found))


def test_elements_are_the_halves_of_the_words(backend):
    key = on_device(backend, make_key(3))
    bits = unsigned(backend, random_bits(key, 6, xp=backend.xp))
    halves = np.stack([bits & 0xFFFF, bits >> 16], axis=1).reshape(-1)
    for p in (0.001, 0.3, 0.9):
        mask = backend.to_numpy(bernoulli(key, (2, 5), p, dtype=backend.xp.float64, xp=backend.xp))
        signed_halves = halves.astype(np.uint16).view(np.int16)[:10]
        np.testing.assert_array_equal(mask.reshape(-1), signed_halves < level(p) - 2**15)
    u = backend.to_numpy(uniform(key, (6,), dtype=backend.xp.float64, xp=backend.xp))
    np.testing.assert_array_equal(u, (bits >> 8) * 2.0**-24)
    small = backend.to_numpy(uniform(key, (6,), dtype=backend.xp.float32, xp=backend.xp))
    np.testing.assert_array_equal(small, u)


def test_rows_are_the_same_in_a_larger_batch(backend):
    key = on_device(backend, make_key(0))
    small, large = (bernoulli(key, (n, 7), 0.5, dtype=backend.xp.float32, xp=backend.xp) for n in (3, 10))
    np.testing.assert_array_equal(backend.to_numpy(small), backend.to_numpy(large)[:3])


def test_every_integer_of_a_key_matters(backend):
    def bits(key):
        return tuple(backend.to_numpy(random_bits(on_device(backend, key), 4, xp=backend.xp)))

    key = make_key(0)
    keys = [key, make_key(1), make_key(0, step=1), key.at(0), key.at(1), key.at(0, 0), key.at(0, 1), key.at(1, 0)]
    assert len({bits(k) for k in keys}) == len(keys)
    assert bits(key.at(0).at(1)) == bits(key.at(0, 1)) == bits(Key(*key[:3], place=(0, 1)))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8, 0.999])
def test_share_of_ones_is_the_probability(p, backend):
    n, key = 40_000, on_device(backend, make_key(11))
    mask = backend.to_numpy(bernoulli(key, (n // 4, 4), p, dtype=backend.xp.float32, xp=backend.xp))
    exact = level(p) / LEVELS
    assert abs(exact - p) <= 0.5 / LEVELS
    sigma = math.sqrt(exact * (1.0 - exact))
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert abs(mask.mean(dtype=np.float64) - exact) < 5.0 * sigma / math.sqrt(n)
    # in each half of each word, and independently between neighbours
    assert np.all(np.abs(mask.mean(axis=0, dtype=np.float64) - exact) < 5.0 * sigma / math.sqrt(n / 4))
    flat = (mask.reshape(-1) - exact) / sigma
    for lag in (1, 2, 3, 4):
        assert abs(np.mean(flat[lag:] * flat[:-lag])) < 5.0 / math.sqrt(n)


def test_probabilities_at_the_ends(backend):
    key = on_device(backend, make_key(0))
    ones = bernoulli(key, (3, 3), 1.0, dtype=backend.xp.float32, xp=backend.xp)
    np.testing.assert_array_equal(backend.to_numpy(ones), np.ones((3, 3), np.float32), strict=True)
    assert level(1e-9) == 1
    assert level(1.0 - 1e-9) == LEVELS


def test_uniform_numbers_fill_the_interval(backend):
    n, key = 40_000, on_device(backend, make_key(12))
    u = backend.to_numpy(uniform(key, (n,), dtype=backend.xp.float32, xp=backend.xp)).astype(np.float64)
    assert 0.0 <= u.min() < 1e-3
    assert 1.0 - 1e-3 < u.max() < 1.0
    assert abs(u.mean() - 0.5) < 5.0 * math.sqrt(1 / 12 / n)
    counts = np.bincount((u * 16).astype(int), minlength=16)
    assert np.all(np.abs(counts - n / 16) < 5.0 * math.sqrt(n / 16))


def test_a_probability_is_a_number_of_levels_to_the_last():
    # Each half word below the level counts, and the level itself does not: of 2^18 some four stand on the edge.
    key, size, xp = make_key(3), 2**18, get_backend("numpy").xp
    words = random_bits(key, size // 2, xp=xp).astype(np.int64)
    halves = np.stack([words % 2**16, words // 2**16 % 2**16], axis=1).reshape(-1)
    edge = int(halves[7] + 2**15) % 2**16  # as a signed number the half word begins at -2^15
    mask = bernoulli(key, (size,), edge / LEVELS, dtype=np.float64, xp=xp)
    np.testing.assert_array_equal(mask, (halves + 2**15) % 2**16 < edge)
    assert mask[7] == 0.0


def test_normal_numbers_are_box_and_mullers():
    rng = HostRandom(4, (1,))
    u1, u2 = rng.uniform((2, 500))
    np.testing.assert_allclose(
        rng.normal((500,)), np.sqrt(-2.0 * np.log(1.0 - u1)) * np.cos(2.0 * np.pi * u2), rtol=1e-9
    )
