"""Products of rounded operands: as wrong as their bits allow, and no more; everything else stays in float32."""

from __future__ import annotations

import os
import types

import numpy as np
import pytest

import bpxp
from bpxp import nn, optim
from bpxp.backends import get_backend
from bpxp.backends.precision import ROUNDOFF, label, parse_label
from bpxp.errors import InvalidValueError

ASKED = [
    name for name in os.environ.get("BPXP_TEST_BACKENDS", "").split(",") if name.startswith(("cupy", "jax", "torch"))
]
NARROW = [(name, p) for name in ASKED for p in ("bfloat16", "float16") if not (name.startswith("cupy") and "b" in p)]


@pytest.fixture(scope="module", params=NARROW, ids="+".join)
def narrow(request):
    """A backend with products of 16 bits, of a library that has them, and the roundoff of the operands."""
    name, precision = request.param
    return get_backend(name, matmul=precision), ROUNDOFF[precision]


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
def test_numpy_has_none(precision):
    with pytest.raises(InvalidValueError, match=f"numpy has no matrix product of float32 in {precision} on device cpu"):
        get_backend("numpy", matmul=precision)


SHAPES = [
    ((64, 784), (784, 256)),
    ((10, 30), (30, 10)),
    ((1, 5), (5, 1)),
    ((3, 20, 30), (3, 30, 40)),
    ((4, 9, 8), (8, 7)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_a_product_is_wrong_by_the_rounding_of_its_operands(narrow, rng, shapes):
    backend, u = narrow
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    result = backend.xp.matmul(backend.asarray(a), backend.asarray(b))
    assert result.dtype == backend.xp.float32
    error = np.abs(backend.to_numpy(result) - a.astype(float) @ b.astype(float))
    # Two operands rounded, and a sum of k terms in float32. (CuPy rounds the sum of float16 again.)
    terms = np.abs(a).astype(float) @ np.abs(b).astype(float)
    rounded = 3.01 if backend.name.startswith("cupy") else 2.01
    assert (error <= (rounded * u + a.shape[-1] * 2.0**-24) * terms).all()


def test_it_is_rounded_at_all(narrow, rng):
    backend, u = narrow
    a, b = (rng.random((128, 128)).astype(np.float32) for _ in range(2))
    exact = a.astype(float) @ b.astype(float)
    result = backend.to_numpy(backend.xp.matmul(backend.asarray(a), backend.asarray(b)))
    assert np.linalg.norm(result - exact) > 1e-2 * u * np.linalg.norm(exact)


def test_transposed_operands(narrow, rng):
    backend, u = narrow
    xp = backend.xp
    a, b = (backend.asarray(rng.random((40, 50)).astype(np.float32)) for _ in range(2))
    result = backend.to_numpy(xp.matmul(xp.matrix_transpose(a), b))
    exact = backend.to_numpy(a).T.astype(float) @ backend.to_numpy(b).astype(float)
    np.testing.assert_allclose(result, exact, rtol=2.5 * u)


@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_numbers_beyond_the_range_of_float16(narrow, rng, size):
    backend, u = narrow
    a, b = (rng.random((60, 60)).astype(np.float32) for _ in range(2))
    result = backend.xp.matmul(backend.asarray(a * np.float32(size)), backend.asarray(b))
    np.testing.assert_allclose(backend.to_numpy(result), (a * np.float32(size)).astype(float) @ b, rtol=2.5 * u)


def test_zeros(narrow):
    backend, _ = narrow
    zeros = backend.xp.zeros((3, 3), dtype=backend.xp.float32)
    np.testing.assert_array_equal(backend.to_numpy(backend.xp.matmul(zeros, zeros)), np.zeros((3, 3)))


def test_other_dtypes_are_not_rounded(narrow):
    backend, _ = narrow
    a = backend.asarray(np.full((4, 4), 1.0 + 2.0**-20))
    assert a.dtype == backend.xp.float64
    np.testing.assert_array_equal(
        backend.to_numpy(backend.xp.matmul(a, a)), np.full((4, 4), 4.0 * (1.0 + 2.0**-20) ** 2)
    )


# ---------------------------------------------------------------- gradients and training


SMOOTH = {
    "dense": ([64, nn.Dense(96, activation="tanh"), nn.Dense(48, activation="silu"), 10], {}),
    "cnn": (
        [nn.Conv2D(8, 3, activation="tanh"), nn.AvgPool2D(2), nn.Conv2D(16, 2, activation="tanh"), nn.Flatten(), 10],
        {"input_shape": (8, 8, 1)},
    ),
}


def gradient_errors(backend, which):
    layers, shape = SMOOTH[which]
    train, _ = bpxp.data.digits()
    grads = []
    for place, dtype in ((backend, "float32"), ("numpy", "float64")):
        net = bpxp.Network(layers, backend=place, dtype=dtype, seed=0, **shape)
        _, found = net.loss_and_gradients(train.x[:64], train.y[:64])
        grads.append([net.backend.to_numpy(a).astype(float) for layer in found for a in layer])
    return [np.linalg.norm(a - exact) / np.linalg.norm(exact) for a, exact in zip(*grads, strict=True)]


@pytest.mark.parametrize("which", SMOOTH)
def test_gradients_beside_those_of_float64(narrow, which):
    backend, u = narrow
    if which == "cnn" and backend.matmul != "bfloat16":
        pytest.skip("once is enough")
    worst = max(gradient_errors(backend, which))
    # Through three layers, forwards and backwards, each product adds its own rounding: bfloat16 has u = 2^-8.
    assert 0.05 * u < worst < 3.0 * u


def test_without_it_gradients_are_float32s(backend):
    assert max(gradient_errors(backend, "dense")) < 1e-5


def test_the_digits_are_learned_as_well_and_weights_stay_in_float32(narrow):
    backend, u = narrow
    if backend.matmul != "bfloat16":
        pytest.skip("once is enough")
    train, test = bpxp.data.digits()
    net = bpxp.Network([64, 30, 10], hidden="relu", init="he", backend=backend, seed=0)
    trainer = bpxp.Trainer(net, optim.Adam(5e-3), progress=False)
    trainer.fit(train, epochs=4, batch_size=32)
    assert net.evaluate(test)["accuracy"] > 0.93  # float32: 0.94
    before = backend.to_numpy(net.params[0].W)
    assert before.dtype == np.float32
    net.gradient_descent((train.x[:32], train.y[:32]), learning_rate=1e-5)
    changed = np.abs(backend.to_numpy(net.params[0].W) - before)
    assert 0.0 < changed.max() < u * np.abs(before).max()  # a step that 16 bits would not feel


# ---------------------------------------------------------------- how it is asked for


def test_by_name_by_argument_and_for_a_network(narrow):
    backend, _ = narrow
    plain, precision = backend.name, backend.matmul
    assert "+" not in plain
    named = get_backend(label(backend))
    assert named is backend
    assert get_backend(plain, matmul=precision) is named
    assert get_backend(named) is named
    assert get_backend(named, matmul=precision) is named
    other = get_backend(get_backend(plain), matmul=precision)
    assert (other.name, other.matmul) == (plain, precision)
    net = bpxp.Network([4, 3, 2], backend=plain, matmul=precision, seed=0)
    assert net.backend is named
    assert repr(net).endswith(f"float32 on {plain}+{precision}>")


@pytest.mark.parametrize(
    ("text", "parts"),
    [("torch:cuda+tf32", ("torch:cuda", "tf32")), ("cupy:1", ("cupy:1", None)), ("jax+", ("jax", ""))],
)
def test_a_label_is_read_back(text, parts):
    assert parse_label(text) == parts
    if parts[1]:
        assert label(types.SimpleNamespace(name=parts[0], matmul=parts[1])) == text


def test_a_label_without_its_precision():
    with pytest.raises(InvalidValueError, match="unknown precision ''"):
        get_backend("numpy+")


def test_float32_is_what_there_is_without_a_word(backend):
    assert get_backend(backend, matmul="float32") is backend
    assert get_backend(f"{backend.name}+float32") is get_backend(backend.name)


def test_a_file_does_not_tell(narrow, tmp_path):
    backend, _ = narrow
    net = bpxp.Network([4, 3, 2], backend=backend, seed=0)
    net.save(tmp_path / "net.bpxp")
    for place in ("numpy", backend):
        other = bpxp.Network.load(tmp_path / "net.bpxp", backend=place)
        assert other.backend is get_backend(place)
        np.testing.assert_array_equal(other.backend.to_numpy(other.params[0].W), backend.to_numpy(net.params[0].W))
    assert net.to("numpy").backend.name == "numpy"


def test_the_environment_may_name_it(narrow, monkeypatch):
    monkeypatch.setenv("BPXP_BACKEND", label(narrow[0]))
    assert get_backend() is narrow[0]


def test_what_there_is_not(backend):
    with pytest.raises(InvalidValueError, match=r"unknown precision 'bfloat': .* Did you mean 'bfloat16'\?"):
        get_backend(backend, matmul="bfloat")
    if backend.name in ("torch", "jax:cpu", "jax") and "cuda" not in str(backend.device).lower():
        with pytest.raises(InvalidValueError, match="in tf32 on device .*expected float32 or bfloat16 or float16"):
            get_backend(backend, matmul="tf32")


def test_two_precisions_are_one_too_many(narrow):
    with pytest.raises(InvalidValueError, match="two precisions"):
        get_backend(narrow[0], matmul="tf32")


def test_a_network_of_float64_has_no_rounded_products(narrow):
    with pytest.raises(InvalidValueError, match="products of float64 are not rounded"):
        bpxp.Network([4, 3, 2], backend=narrow[0], dtype="float64")


# ---------------------------------------------------------------- what only a GPU has, as far as it can be seen without


def test_torch_has_its_switch_back_after_each_product():
    torch = pytest.importorskip("torch")
    from bpxp.backends.torch import matmul as torch_matmul

    seen, settings = [], types.SimpleNamespace(fp32_precision="none")
    gpu = types.SimpleNamespace(device=types.SimpleNamespace(type="cuda"))
    found = torch_matmul.rounding_matmuls(gpu)
    assert list(found) == ["tf32", "bfloat16", "float16"]
    before = torch.backends.cuda.matmul.fp32_precision
    assert found["tf32"](torch.ones(2, 2), torch.ones(2, 2)).sum() == 8.0
    assert torch.backends.cuda.matmul.fp32_precision == before

    def failing():
        with torch_matmul._set(settings, "tf32"):
            seen.append(settings.fp32_precision)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert (seen, settings.fp32_precision) == (["tf32"], "none")


@pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5))])
def test_torchs_products_of_16_bits_return_float32(shapes):
    torch = pytest.importorskip("torch")
    from bpxp.backends.torch import matmul as torch_matmul

    a, b = (torch.empty(shape, device="meta") for shape in shapes)
    product = torch_matmul._narrow(torch.bfloat16, a, b)
    assert product.dtype == torch.float32
    assert product.shape == (*shapes[0][:-1], 5)


def test_a_processor_without_bfloat16_gets_the_same_numbers(rng):
    torch = pytest.importorskip("torch")
    from bpxp.backends.torch import matmul as torch_matmul

    a, b = (torch.from_numpy(rng.random((50, 50)).astype(np.float32)) for _ in range(2))
    exact = a.bfloat16().double() @ b.bfloat16().double()
    np.testing.assert_allclose(torch_matmul._rounded(torch.bfloat16, a, b), exact, rtol=1e-6)
    assert not torch_matmul._rounds(torch.matmul)


def test_jax_multiplies_float32_as_float32_whatever_its_default():
    jax = pytest.importorskip("jax")
    xp = get_backend("jax").xp
    with jax.default_matmul_precision("bfloat16"):
        traced = str(jax.make_jaxpr(xp.matmul)(xp.ones((2, 2), dtype=xp.float32), xp.ones((2, 2), dtype=xp.float32)))
    assert "HIGHEST" in traced
