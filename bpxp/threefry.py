"""Random numbers on the device: Threefry-2x32-20, a function of a key and of where its bits are used.

Only integer operations decide, so that the numbers are the same bits on every array library.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bpxp.errors import InvalidValueError, message

Array = Any
Namespace = Any

PLACE_BITS = 64


class Key(NamedTuple):
    """Whose random numbers: of which seed, which training step, and which place in the network.

    Attributes
    ----------
    k0, k1 : array, (1,), int32
        Two words made from the seed by `bpxp.random.key_words`.
    step : array, (1,), int32
        The number of the training step.
    place : tuple of int
        Where in the network: static, so that a traced key has no other arrays than these three.

    Notes
    -----
    The place is written in groups of seven bits, like a text that can be read back, and this word of 64 bits enters
    the key by exclusive or: two places never share a stream. The step is the second word of the counter, whose first
    runs over the blocks of one draw.
    """

    k0: Array
    k1: Array
    step: Array
    place: tuple[int, ...] = ()

    def at(self, *place: int) -> Key:
        """Return the key of a place below this one: of the i-th layer, say."""
        return self._replace(place=self.place + place)

    def words(self) -> tuple[Array, Array]:
        """Return the two key words, the place among them."""
        low, high = place_words(self.place)
        return self.k0 ^ low, self.k1 ^ high


def place_words(place: tuple[int, ...]) -> tuple[int, int]:
    """Return a place as two signed 32-bit words, no two places the same.

    Raises
    ------
    InvalidValueError
        If the place does not fit: eight levels of fewer than 127 layers do.
    """
    word = 0
    for i in place:
        n = i + 1  # never zero: () and (0,) differ
        groups = max(1, -(-n.bit_length() // 7))
        for group in reversed(range(groups)):  # the eighth bit says that the integer goes on
            word = word << 8 | (n >> 7 * group) & 0x7F | (0x80 if group else 0)
    if word >> PLACE_BITS or any(i < 0 for i in place):
        raise InvalidValueError(
            message("Key.at", "layers are nested too deeply", got=str(place), expected="at most eight levels")
        )
    return signed(word), signed(word >> 32)


def signed(word: int) -> int:
    """Return the lowest 32 bits of an integer as a signed number: what an int32 array takes."""
    return (word + 2**31) % 2**32 - 2**31
