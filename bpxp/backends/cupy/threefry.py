"""Threefry-2x32-20 in one CuPy kernel: the bits of `bpxp.core.threefry`, which launches about 130 small ones."""

from __future__ import annotations

import cupy

from bpxp.core.threefry import PARITY, ROTATIONS


def source() -> str:
    """Return the body of the kernel: words are unsigned, since signed overflow is undefined in C++."""
    lines = [
        "const unsigned int k[3] = {(unsigned int)key0, (unsigned int)key1,",
        f"    (unsigned int)key0 ^ (unsigned int)key1 ^ {PARITY}u}};",
        "unsigned int a = (unsigned int)counter0 + k[0];",
        "unsigned int b = (unsigned int)counter1 + k[1];",
    ]
    for j in range(5):
        for r in ROTATIONS[j % 2]:
            lines.append(f"a += b; b = (b << {r}) | (b >> {32 - r}); b ^= a;")
        lines.append(f"a += k[{(j + 1) % 3}]; b += k[{(j + 2) % 3}] + {j + 1}u;")
    return "\n".join([*lines, "word0 = (int)a;", "word1 = (int)b;"])


# (key0, key1, counter0, counter1) -> (word0, word1): arrays of int32, each of the shape of counter0 or (1,)
threefry = cupy.ElementwiseKernel(
    "int32 key0, int32 key1, int32 counter0, int32 counter1",
    "int32 word0, int32 word1",
    source(),
    "bpxp_threefry",
)
