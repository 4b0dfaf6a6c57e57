"""Every function that PyTorch's recording calls again writes where it is told what it returned the first time."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from bpxp.backends.torch.capture import COPIED, WITH_NUMBERS, WITH_OUT, TorchRecording  # noqa: E402

HALVES = torch.linspace(0.1, 0.9, 12, dtype=torch.float64).reshape(3, 4)
INTEGERS = torch.arange(12, dtype=torch.int32).reshape(3, 4) + 1
TRUTHS = HALVES > 0.5
PLACES = torch.tensor([2, 0, 2])

SAMPLES = {
    **dict.fromkeys(
        "add atan2 div eq fmod floor_divide ge gt le logaddexp lt maximum minimum mul ne".split(),
        (HALVES, HALVES.flip(0)),
    ),
    **dict.fromkeys("pow remainder sub".split(), (HALVES, HALVES.flip(0))),
    **dict.fromkeys("bitwise_and bitwise_or bitwise_xor __and__ __or__ __xor__".split(), (INTEGERS, INTEGERS.flip(0))),
    **dict.fromkeys("bitwise_left_shift bitwise_right_shift __lshift__ __rshift__".split(), (INTEGERS, 2)),
    **dict.fromkeys("logical_and logical_or logical_xor".split(), (TRUTHS, TRUTHS.flip(0))),
    **dict.fromkeys("logical_not all any".split(), (TRUTHS,)),
    **dict.fromkeys("amax amin".split(), (HALVES, [1], True)),
    **dict.fromkeys("argmax argmin".split(), (HALVES, 1)),
    **dict.fromkeys("mean sum".split(), (HALVES, [0], False)),
    **dict.fromkeys("cat stack".split(), ([HALVES, HALVES.flip(0)], 1)),
    "acosh": (HALVES + 1.0,),
    "bitwise_not": (INTEGERS,),
    "bmm": (HALVES[None], HALVES.mT[None]),
    "cumsum": (HALVES, 1),
    "index_select": (HALVES, 0, PLACES),
    "mm": (HALVES, HALVES.mT),
    "prod": (HALVES, 1),
    "rsub": (HALVES, torch.tensor(1.0, dtype=torch.float64)),
    "where": (TRUTHS, HALVES, HALVES.flip(0)),
    "constant_pad_nd": (HALVES, [1, 1], 0.5),
    "flip": (HALVES, [0]),
    "repeat": (HALVES, [2, 1]),
    "roll": (HALVES, [1], [0]),
}


def operation(name):
    """Return the function that PyTorch tells a recording of under this name."""
    function = getattr(torch.ops.aten, name) if hasattr(torch.ops.aten, name) else getattr(torch, name)
    return functools.partial(function, dtype=torch.float32) if name == "_to_copy" else function


@pytest.mark.parametrize("name", WITH_OUT)
def test_what_is_called_again_writes_what_it_returned(name):
    arguments = SAMPLES.get(name, (HALVES,))
    expected = operation(name)(*arguments)
    into = torch.empty_like(expected)
    WITH_OUT[name](*arguments, out=into)
    torch.testing.assert_close(into, expected, rtol=0, atol=0)


@pytest.mark.parametrize("turned", [False, True], ids=["in order", "turned"])
@pytest.mark.parametrize("name", [*WITH_OUT, *COPIED])
def test_a_step_of_one_operation_is_recorded(name, turned):
    function, (first, *others) = operation(name), SAMPLES.get(name, (HALVES,))
    if turned and isinstance(first, torch.Tensor) and first.ndim == 2:
        first = first.mT.contiguous().mT

    def step(state, data):
        factor, total = state
        moving = data * factor if isinstance(data, torch.Tensor) and data.is_floating_point() else data
        made = function(moving, *others)
        return factor * 0.875 + 0.125, total + made.to(torch.float64)

    def begin():
        return torch.full((1,), 0.75, dtype=torch.float64), torch.zeros_like(
            function(first, *others), dtype=torch.float64
        )

    expected = begin()
    for _ in range(14):
        expected = step(expected, first)
    replay = TorchRecording(step)
    after = replay(begin(), first, count=14)
    assert replay.plays, replay.reason
    torch.testing.assert_close(after, expected, rtol=0, atol=0, equal_nan=True)


def test_what_takes_numbers_is_what_is_called_again():
    assert {name.removesuffix("_") for name in WITH_NUMBERS} <= set(WITH_OUT)


def test_recording_imports_no_compiler():
    program = """
import sys, torch, bpxp
net = bpxp.Network([4, 3], backend="torch", seed=0)
data = torch.ones((60, 4)), torch.ones(60, dtype=torch.int64)
bpxp.Trainer(net, bpxp.optim.SGD(0.1), progress=False).fit(data, epochs=2, batch_size=2)
assert any(run.plays for run in net._compiled.values()), net.eager_steps
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
