"""Random numbers of the host, and valid seeds. Golden values of what is drawn with them pin their bits."""

from __future__ import annotations

import numpy as np
import pytest

from bpxp.core.random import HostRandom, normalize_seed
from bpxp.errors import InvalidTypeError, InvalidValueError


@pytest.mark.parametrize("seed", [0, 7, 10**60, np.int64(7), np.uint8(7)], ids=repr)
def test_an_int_is_a_seed(seed):
    found = normalize_seed(seed)
    assert found == seed
    assert type(found) is int


def test_without_a_seed_it_is_any_of_128_bits():
    found = [normalize_seed(None) for _ in range(50)]
    assert len(set(found)) == 50
    assert 2**120 < max(found) < 2**128


def test_a_generator_gives_its_next_128_bits():
    generator, twin = np.random.default_rng(5), np.random.default_rng(5)
    first = normalize_seed(generator)
    assert first == sum(byte << 8 * i for i, byte in enumerate(twin.bytes(16)))
    assert normalize_seed(generator) != first
    assert 2**120 < first < 2**128


def test_a_seed_sequence_gives_its_first_four_words():
    sequence = np.random.SeedSequence(5)
    words = np.random.SeedSequence(5).generate_state(4)
    assert normalize_seed(sequence) == normalize_seed(sequence) == sum(int(w) << 32 * i for i, w in enumerate(words))


@pytest.mark.parametrize("seed", [True, np.bool_(False), 1.0, "1", b"1", [1], np.ones(1, int)], ids=repr)
def test_what_is_no_seed(seed):
    with pytest.raises(InvalidTypeError, match=rf"Network\(seed=…\): not a seed: got {type(seed).__name__}"):
        normalize_seed(seed)


def test_a_negative_seed():
    with pytest.raises(InvalidValueError, match=r"Loader\(seed=…\): a seed cannot be negative: got -1"):
        normalize_seed(-1, "Loader(seed=…)")


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_a_permutation_has_every_number_once(n):
    found = HostRandom(3, (1,)).permutation(n)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(np.sort(found), np.arange(n))
    assert n < 1000 or np.mean(found == np.arange(n)) < 0.01
    np.testing.assert_array_equal(found, HostRandom(3, (1,)).permutation(n))


def test_equal_words_keep_their_order(monkeypatch):
    words = np.arange(1000, dtype=np.uint64) % 3
    monkeypatch.setattr(HostRandom, "bits", lambda self, n: words[:n])
    expected = np.concatenate([np.arange(k, 1000, 3) for k in range(3)])
    np.testing.assert_array_equal(HostRandom(0).permutation(1000), expected)
