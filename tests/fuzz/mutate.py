"""Good inputs made bad: bytes with changed bits, lengths and numbers; JSON whose values have been exchanged."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

NUMBERS = [0, 1, 2, 3, 5, 127, 128, 255, 256, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
WORDS = [n.to_bytes(4, order) for n in NUMBERS for order in ("big", "little")]
LONG = [n.to_bytes(8, "little") for n in (0, 1, 2**20, 2**20 + 1, 2**31, 2**32, 2**53, 2**63, 2**64 - 1)]

# JSON values that a reader may not expect. The last ones are long, and rare.
PLAIN = """-1 0 1 2 3 4 7 64 0.5 -0.0 1.0 1e-9 1e999 NaN -Infinity null true false "" "a" "relu" "../a" "__class__"
"type" [] {} [[]] [{}] [0] [1] [2,3] [0,0] [4,4,1] [1,1,1,1] [null] {"type":null} {"type":"Dense"} {"type":"Flatten"}
{"type":["Dense"]} 2147483647 2147483648 4294967296 281474976710656 9223372036854775808 1e30 "\\ud800" "\\u0000"
1000000000000000000000000000000 [-1] [1.5,2] [true] ["a"] "F32" "I64" "BOOL" "float64" """.split()
ENDLESS = ["[" * 200 + "]" * 200, "[" * 950 + "]" * 950, '{"a":' * 300 + "1" + "}" * 300, "9" * 400, "9" * 5000]
ENDLESS += ['"' + "a" * 3000 + '"', "[" + "1," * 40 + "1]", "[" + "[]," * 2000 + "1]"]


def pick(rng: random.Random, things: Sequence[T]) -> T:
    """Return one of them: `rng.choice` takes four times as long."""
    return things[int(rng.random() * len(things))]


def changed(rng: random.Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    """Return bytes with one to four changes; some of them take a piece of another input."""
    b = bytearray(raw)
    for _ in range(1 + int(4 * rng.random() ** 3)):
        n, what = len(b), rng.random()
        at = int(rng.random() * (n + 1))
        if what < 0.25 and at < n:
            b[at] ^= 1 << int(8 * rng.random())
        elif what < 0.4 and at < n:
            b[at] = int(256 * rng.random())
        elif what < 0.6:
            word = pick(rng, WORDS if what < 0.55 else LONG)
            b[at : at + len(word)] = word
        elif what < 0.7:
            del b[at:]
        elif what < 0.78:
            del b[at : at + 1 + int(8 * rng.random())]
        elif what < 0.86:
            b[at:at] = rng.randbytes(1 + int(8 * rng.random()))
        elif what < 0.92:
            b[at:at] = b[at : at + int(64 * rng.random())]
        else:
            other = pick(rng, others)
            b[at:] = other[int(rng.random() * (len(other) + 1)) :]
    return bytes(b)


class Texts:
    """JSON texts of which it is known where their values and keys are."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.values = [spans(text) for text in texts]
        self.keys = [[m.span(1) for m in re.finditer(r'("(?:[^"\\]|\\.)*"):', text)] for text in texts]
        found = {text[a:b] for text, places in zip(self.texts, self.values, strict=True) for a, b in places}
        self.parts = sorted(part for part in found if len(part) < 2000)
        self.names = sorted({text[a:b] for text, places in zip(self.texts, self.keys, strict=True) for a, b in places})

    def changed(self, rng: random.Random, which: int | None = None) -> str:
        """Return one of the texts with one to four values or keys exchanged: valid JSON, and mostly nonsense."""
        i = int(rng.random() * len(self.texts)) if which is None else which
        text, end = self.texts[i], len(self.texts[i])
        places = []
        for _ in range(1 + int(4 * rng.random() ** 2)):
            key = rng.random() < 0.15 and bool(self.keys[i])
            places.append((pick(rng, self.keys[i] if key else self.values[i]), key))
        for (a, b), key in sorted(places, reverse=True):
            if b > end:
                continue  # it overlaps with what has been exchanged
            text, end = text[:a] + (pick(rng, self.names) if key else self._other(rng)) + text[b:], a
        return text

    def _other(self, rng: random.Random) -> str:
        what = rng.random()
        return pick(rng, PLAIN if what < 0.6 else self.parts if what < 0.998 else ENDLESS)


def spans(text: str) -> list[tuple[int, int]]:
    """Return begin and end of every value in a JSON text."""
    found: list[tuple[int, int]] = []
    decoder, opened = json.JSONDecoder(), []
    i = 0
    while i < len(text):
        c = text[i]
        if c in "[{":
            opened.append(i)
            i += 1
        elif c in "]}":
            i += 1
            found.append((opened.pop(), i))
        elif c in ",: \n":
            i += 1
        else:
            _, end = decoder.raw_decode(text, i)
            if text[end : end + 1] != ":":  # a value, and no key
                found.append((i, end))
            i = end
    return found
