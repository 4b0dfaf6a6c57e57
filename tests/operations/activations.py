"""The table: activations, each beside its definition with any number of digits, and PyTorch's slope at its kinks."""

from __future__ import annotations

from mpmath import mp
from operations.record import Kink, OfLayer, Refusal, numbers

from bpxp import nn

# SELU's constants as the paper's equation 14 has them.
LAMBDA, ALPHA = mp.mpf("1.0507009873554804934193349852946"), mp.mpf("1.6732632423543772848170429916717")


def sigma(z):
    e = mp.exp(-abs(z))
    return (1 if z >= 0 else e) / (1 + e)


def softplus(z):
    return max(z, 0) + mp.log1p(mp.exp(-abs(z)))


def tail(z):
    """Φ(z) of the standard normal distribution; beyond ±1000 no float knows it from 0 and 1."""
    return mp.erfc(-min(max(z, -1000), 1000) / mp.sqrt(2)) / 2


def density(z):
    return mp.exp(-z * z / 2) / mp.sqrt(2 * mp.pi)


def gate_of_mish(z):
    return mp.tanh(softplus(z))


def argument(z):
    """Twice the argument of the tanh in GELU's approximate form."""
    return 2 * mp.sqrt(2 / mp.pi) * (z + mp.mpf("0.044715") * z**3)


def slope_of_tanh_gelu(z):
    inner = 2 * mp.sqrt(2 / mp.pi) * (1 + 3 * mp.mpf("0.044715") * z**2)
    return sigma(argument(z)) + z * sigma(argument(z)) * sigma(-argument(z)) * inner


def leaky(slope):
    slope = mp.mpf(slope)
    return lambda z: max(z, slope * z), lambda z: mp.mpf(1) if z > 0 else slope


def elu(alpha, scale=1):
    return (
        lambda z: scale * (z if z > 0 else alpha * mp.expm1(z)),
        lambda z: scale * (1 if z > 0 else alpha * mp.exp(z)),
    )


def record(name, thing, both, **more):
    value, slope = both
    return OfLayer(name, thing, value=value, slope=slope, shape=(3,), shapes=((1,), (8,), (2, 3, 2)), **more)


def at(z, slope):
    """A kink at z, seen from all sides of zero."""
    return (Kink(z, slope), Kink(-0.0, slope)) if z == 0 else (Kink(z, slope),)


ACTIVATIONS = [
    record("Identity", nn.Identity(), (lambda z: z, lambda z: mp.mpf(1)), names=("Activation", "ACTIVATIONS")),
    record("Sigmoid", nn.Sigmoid(), (sigma, lambda z: sigma(z) * sigma(-z))),
    record("Tanh", nn.Tanh(), (mp.tanh, lambda z: 4 * sigma(2 * z) * sigma(-2 * z))),
    record("ReLU", nn.ReLU(), leaky(0), jumps=(0.0,), kinks=at(0.0, 0.0)),
    record(
        "LeakyReLU",
        nn.LeakyReLU(),
        leaky(0.01),
        jumps=(0.0,),
        kinks=at(0.0, 0.01),
        options={"slope": (0.02, 0.0)},
        bad={"slope": (*numbers(">= 0"), 1.1)},
    ),
    record("LeakyReLU of slope 0.2", nn.LeakyReLU(0.2), leaky(0.2), jumps=(0.0,), kinks=at(0.0, 0.2)),
    record("LeakyReLU of slope 0", nn.LeakyReLU(0.0), leaky(0), jumps=(0.0,), kinks=at(0.0, 0.0)),
    record("LeakyReLU of slope 1", nn.LeakyReLU(1.0), leaky(1)),
    record(
        "ELU",
        nn.ELU(),
        elu(1),
        jumps=(0.0,),  # of the second derivative
        kinks=at(0.0, 1.0),
        options={"alpha": (0.5, 0.0)},
        bad={"alpha": numbers(">= 0")},
    ),
    record("ELU of level 0.3", nn.ELU(0.3), elu(mp.mpf(0.3)), jumps=(0.0,), kinks=at(0.0, 0.3)),
    record("ELU of level 0", nn.ELU(0.0), elu(0), jumps=(0.0,), kinks=at(0.0, 0.0)),
    record("SELU", nn.SELU(), elu(ALPHA, LAMBDA), jumps=(0.0,), kinks=at(0.0, 1.7580993408473766), top=0.95),
    record(
        "GELU",
        nn.GELU(),
        (lambda z: z * tail(z), lambda z: tail(z) + z * density(z)),
        options={"approximate": ("tanh",)},
        refuses=(
            Refusal(lambda: nn.GELU("exact"), ValueError, r"GELU\(approximate=…\).*got 'exact', expected 'none' or"),
        ),
    ),
    record("GELU by tanh", nn.GELU("tanh"), (lambda z: z * sigma(argument(z)), slope_of_tanh_gelu)),
    record("SiLU", nn.SiLU(), (lambda z: z * sigma(z), lambda z: sigma(z) * (1 + z * sigma(-z)))),
    record("Softplus", nn.Softplus(), (softplus, sigma)),
    record(
        "Softsign",
        nn.Softsign(),
        (lambda z: z / (1 + abs(z)), lambda z: 1 / (1 + abs(z)) ** 2),
        jumps=(0.0,),  # of the second derivative
        kinks=at(0.0, 1.0),
    ),
    record(
        "HardSigmoid",
        nn.HardSigmoid(),
        (lambda z: min(max(z + 3, 0), 6) / mp.mpf(6), lambda z: mp.mpf(1) / 6 if abs(z) < 3 else mp.mpf(0)),
        jumps=(-3.0, 3.0),
        kinks=(*at(-3.0, 0.0), *at(3.0, 0.0)),
    ),
    record(
        "Mish",
        nn.Mish(),
        (
            lambda z: z * gate_of_mish(z),
            lambda z: gate_of_mish(z) + z * (1 - gate_of_mish(z) ** 2) * sigma(z),
        ),
    ),
]
