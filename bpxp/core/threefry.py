"""Counter-based random numbers on the device: Threefry-2x32-20, a pure function of a key and a counter.

Integer operations only, so every array library draws the same bits.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from bpxp.core.typing import Array, Namespace
from bpxp.errors import InvalidValueError

PLACE_BITS = 64
PARITY = 0x1BD11BDA  # k0 ^ k1 ^ k2: no key is all zeros in all three words
ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
LEVELS = 2**16  # a probability is a multiple of 1/LEVELS: half a word decides


class Key(NamedTuple):
    """The key of a random stream: seed, training step, and place in the network.

    Attributes
    ----------
    k0, k1 : array, (1,), int32
        Two words made from the seed by `bpxp.core.random.key_words`.
    step : array, (1,), int32
        The number of the training step.
    place : tuple of int
        In the network. Static; a traced step takes the root key, with place ().

    Notes
    -----
    The place is encoded as a variable-length integer (7 bits per byte) into 64 bits, which are XORed into the key: two
    places never share a stream. The step is the second word of the counter; the first counts the blocks of one draw.
    """

    k0: Array
    k1: Array
    step: Array
    place: tuple[int, ...] = ()

    def at(self, *place: int) -> Key:
        """Return the key of a place below this one, for example of the i-th layer."""
        return self._replace(place=self.place + place)

    def words(self) -> tuple[Array, Array]:
        """Return the two key words, with the place mixed in."""
        low, high = place_words(self.place)
        return self.k0 ^ low, self.k1 ^ high


def place_words(place: tuple[int, ...]) -> tuple[int, int]:
    """Return a place as two signed 32-bit words, no two places the same; eight levels of fewer than 127 layers fit."""
    word = 0
    for i in place:
        n = i + 1  # never zero: () and (0,) differ
        groups = max(1, -(-n.bit_length() // 7))
        for group in reversed(range(groups)):  # the eighth bit: more groups follow
            word = word << 8 | (n >> 7 * group) & 0x7F | (0x80 if group else 0)
    if word >> PLACE_BITS or any(i < 0 for i in place):
        what, expected = "layers are nested too deeply", "at most eight levels"
        raise InvalidValueError("Key.at", what, code="E057", got=str(place), expected=expected)
    return signed(word), signed(word >> 32)


def signed(word: int) -> int:
    """Return the lowest 32 bits of an integer as a signed number: what an int32 array takes."""
    return (word + 2**31) % 2**32 - 2**31


def threefry(key0: Array, key1: Array, counter0: Array, counter1: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
    """Return the block of two random words of each counter, by Threefry-2x32-20.

    Parameters
    ----------
    key0, key1, counter1 : array, int32
        Of the shape of `counter0`, or (1,).
    counter0 : array, (n,), int32

    Returns
    -------
    tuple of array, (n,), int32
        New arrays. The words are unsigned; int32 holds their bits.

    Notes
    -----
    int32 is the one integer type that adds, shifts and wraps around in every library: PyTorch lacks most operations on
    unsigned integers. `>>` is an arithmetic shift, so a rotation masks the copied sign bits.

    A backend may provide its own kernel, `xp.threefry` with the same signature and the same bits.

    References
    ----------
    Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC11; known answers from the Random123 library.
    """
    fused = getattr(xp, "threefry", None)
    if fused is not None:
        words: tuple[Array, Array] = fused(key0, key1, counter0, counter1)
        return words
    keys = (key0, key1, key0 ^ key1 ^ PARITY)
    x0 = counter0 + key0
    x1 = xp.zeros_like(counter0)
    x1 += counter1
    x1 += key1
    for j in range(5):
        for r in ROTATIONS[j % 2]:
            x0 += x1
            carried = x1 >> (32 - r)
            carried &= 2**r - 1
            x1 <<= r
            x1 |= carried
            x1 ^= x0
        x0 += keys[(j + 1) % 3]
        x1 += keys[(j + 2) % 3] + (j + 1)
    return x0, x1


def blocks(key: Key, count: int, /, *, xp: Namespace) -> tuple[Array, Array]:
    """Return the first `count` blocks of a key as two arrays of words."""
    return threefry(*key.words(), xp.arange(count, dtype=xp.int32), key.step, xp=xp)


def random_bits(key: Key, size: int, /, *, xp: Namespace) -> Array:
    """Return the first `size` random words of a key, int32."""
    words = xp.reshape(xp.stack(blocks(key, -(-size // 2), xp=xp), axis=1), (-1,))
    return words[:size]


def level(probability: float) -> int:
    """Return the probability as a multiple of 1/`LEVELS`, rounded to the nearest; never 0."""
    return max(1, round(probability * LEVELS))


def bernoulli(key: Key, shape: tuple[int, ...], probability: float, /, *, dtype: Any, xp: Namespace) -> Array:
    """Return independent numbers 1, with the probability ``level(probability) / LEVELS``, and 0; one draw per key.

    Element e, in C order, uses half word e mod 4 of block ⌊e/4⌋: low and high half of the first word, low and high half
    of the second. So the rows of a mask do not depend on the size of the batch. Halves are compared as signed integers,
    hence the same mask on every array library.

    32768 numbers take 0.25 ms on NumPy (0.3 ms without the kernel of `bpxp.backends.numpy.threefry`; comparing 16 bits
    of PCG64 takes 0.08 ms) and 0.1 ms under `jax.jit`. One core of two, 2026.
    """
    size, kept = math.prod(shape), level(probability)
    if kept >= LEVELS:
        return xp.ones(shape, dtype=dtype)
    bound = (kept << 16) - 2**31
    halves = [half < bound for word in blocks(key, -(-size // 4), xp=xp) for half in (word << 16, word)]
    mask = xp.reshape(xp.stack(halves, axis=1), (-1,))[:size]
    return xp.astype(xp.reshape(mask, shape), dtype)


def uniform(key: Key, shape: tuple[int, ...], /, *, dtype: Any, xp: Namespace) -> Array:
    """Return independent numbers, uniform in [0, 1); see `unit`."""
    return unit(random_bits(key, math.prod(shape), xp=xp), shape, dtype=dtype, xp=xp)


def unit(words: Array, shape: tuple[int, ...], /, *, dtype: Any, xp: Namespace) -> Array:
    """Return k/2²⁴, k = 0 … 2²⁴ - 1 the upper bits of each random word: exact in float32."""
    k = words >> 8
    k &= 2**24 - 1
    u = xp.astype(xp.reshape(k, shape), dtype)
    u *= 2.0**-24
    return u
