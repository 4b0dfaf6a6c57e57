"""The way in and the way out: what `asarray` accepts, what is shared, what is refused."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from bpxp.backends import get_backend
from bpxp.errors import DeviceMismatchError, InvalidTypeError

PLAIN = np.arange(12, dtype=np.float32).reshape(3, 4)


def frozen(a):
    a.flags.writeable = False
    return a


def on_disk(folder):
    path = folder / "x.npy"
    np.save(path, PLAIN)
    return np.load(path, mmap_mode="r")


ODDITIES = {
    "nested lists": lambda folder: PLAIN.tolist(),
    "Fortran order": lambda folder: np.asfortranarray(PLAIN),
    "transposed": lambda folder: np.ascontiguousarray(PLAIN.T).T,
    "every second": lambda folder: np.repeat(PLAIN, 2, axis=1)[:, ::2],
    "negative strides": lambda folder: PLAIN[::-1, ::-1].copy()[::-1, ::-1],
    "broadcast": lambda folder: np.broadcast_to(PLAIN, (3, 4)),
    "read-only": lambda folder: frozen(PLAIN.copy()),
    "big-endian": lambda folder: PLAIN.astype(">f4"),
    "little-endian": lambda folder: PLAIN.astype("<f4"),
    "float16": lambda folder: PLAIN.astype(np.float16),
    "float64": lambda folder: PLAIN.astype(np.float64),
    "big-endian float64": lambda folder: PLAIN.astype(">f8"),
    "int64": lambda folder: PLAIN.astype(np.int64),
    "uint8": lambda folder: PLAIN.astype(np.uint8),
    "memory map": on_disk,
    "unaligned": lambda folder: np.frombuffer(b"x" + PLAIN.tobytes(), np.float32, offset=1).reshape(3, 4),
}


@pytest.mark.parametrize("oddity", ODDITIES)
def test_every_oddity_equals_the_plain_array(backend, oddity, tmp_path):
    # Warnings are errors: a read-only array must not raise torch's.
    given = ODDITIES[oddity](tmp_path)
    array = backend.asarray(given, dtype=backend.xp.float32)
    assert array.dtype == backend.xp.float32
    assert array.shape == (3, 4)
    np.testing.assert_array_equal(backend.to_numpy(array), PLAIN)
    np.testing.assert_array_equal(np.asarray(given), PLAIN)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64"])
def test_there_and_back_keeps_dtype_and_values(backend, dtype):
    there = backend.asarray(frozen(PLAIN.astype(dtype)))
    assert there.dtype == getattr(backend.xp, dtype)
    back = backend.to_numpy(there)
    assert type(back) is np.ndarray
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, PLAIN.astype(dtype))


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (1,), (1, 1, 1, 1)])
def test_there_and_back_keeps_the_shape(backend, shape):
    back = backend.to_numpy(backend.asarray(np.zeros(shape, np.float32)))
    assert type(back) is np.ndarray
    assert back.shape == shape


def test_an_array_of_the_backend_is_shared(backend):
    array = backend.asarray(PLAIN)
    assert backend.asarray(array) is array
    assert backend.asarray(array, dtype=backend.xp.float32) is array
    other = backend.asarray(array, dtype=backend.xp.float64)
    assert other.dtype == backend.xp.float64
    np.testing.assert_array_equal(backend.to_numpy(other), PLAIN)


def test_to_numpy_is_a_copy_that_one_may_write(backend):
    array = backend.asarray(frozen(PLAIN.copy()))
    first = backend.to_numpy(array)
    first[...] = -1.0
    np.testing.assert_array_equal(backend.to_numpy(array), PLAIN)


def test_the_hosts_later_writes_are_not_seen_where_arrays_never_change():
    pytest.importorskip("jax")
    backend = get_backend("jax:cpu")
    for given in (aligned(PLAIN), PLAIN.copy(), aligned(PLAIN).T, aligned(PLAIN.astype(">f4"))):
        array = backend.asarray(given)
        before = backend.to_numpy(array)
        given[...] = -1.0
        np.testing.assert_array_equal(backend.to_numpy(array), before)


def test_creation_functions_create_on_the_backends_device(backend):
    xp = backend.xp
    like = backend.asarray(PLAIN)
    f = {"dtype": xp.float32}
    made = [
        xp.zeros((3, 4), **f),
        xp.ones((3, 4), **f),
        xp.full((3, 4), 2.0, **f),
        xp.empty((3, 4), **f),
        xp.arange(4, **f),
        xp.linspace(0.0, 1.0, 4, **f),
        xp.eye(3, 4, **f),
        xp.asarray([[1.0, 2.0, 3.0, 4.0]], **f),
        xp.asarray(like, copy=True),
        xp.zeros_like(like),
    ]
    for array in made:
        assert array.dtype == xp.float32
        assert array.device == like.device
        assert (like + array).shape == (3, 4)  # libraries refuse to mix devices


def test_a_device_of_its_own_mixes_with_nothing():
    pytest.importorskip("array_api_strict")
    here, there = get_backend("strict:device1"), get_backend("strict")
    for backend, array in [(here, there.asarray(PLAIN)), (there, here.asarray(PLAIN))]:
        with pytest.raises(DeviceMismatchError, match="another device") as caught:
            backend.asarray(array)
        assert isinstance(caught.value, ValueError)


def test_no_way_to_the_host_but_to_numpy():
    # Of the fixture itself: a test on this device would notice a float() or an asarray() in the mathematics.
    pytest.importorskip("array_api_strict")
    backend = get_backend("strict:device1")
    one = backend.xp.ones((), dtype=backend.xp.float32)
    for way in (float, int, bool, complex, np.asarray, np.from_dlpack):
        with pytest.raises(RuntimeError, match=r"host sync|Can't convert"):
            way(one)
    with pytest.raises(RuntimeError, match="host sync"):
        range(backend.xp.ones((), dtype=backend.xp.int32))
    assert backend.to_numpy(one) == 1.0


class Elsewhere:
    """An array on the third CUDA device, as far as DLPack can tell."""

    shape, dtype = (2,), "float32"

    def __dlpack_device__(self):
        return 2, 3

    def __dlpack__(self, **kwargs):
        raise AssertionError("bpxp must not copy between devices")


def test_an_array_on_another_device_is_refused_and_both_are_named(backend):
    with pytest.raises(DeviceMismatchError) as caught:
        backend.asarray(Elsewhere())
    text = str(caught.value)
    assert "cuda:3 (" in text
    assert backend.name in text.split("expected")[1]


# Pairs of libraries that share memory on the CPU by DLPack, without a copy.
PAIRS = [(a, b) for a in ("numpy", "torch", "jax") for b in ("numpy", "torch", "jax") if a != b]


def address(a):
    if hasattr(a, "__array_interface__") and isinstance(a, np.ndarray):
        return a.__array_interface__["data"][0]
    return a.data_ptr() if hasattr(a, "data_ptr") else a.unsafe_buffer_pointer()


def aligned(a):
    """Copy to an address that is a multiple of 64: JAX shares no other."""
    memory = np.empty(a.nbytes + 64, np.uint8)
    begin = -memory.__array_interface__["data"][0] % 64
    copy = memory[begin : begin + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


@pytest.mark.parametrize(("giver", "taker"), PAIRS)
def test_an_array_of_another_library_is_taken_without_a_copy(giver, taker):
    for name in (giver, taker):
        if name != "numpy":
            pytest.importorskip(name)
    give, take = get_backend(giver + ":cpu"), get_backend(taker + ":cpu")
    given = give.asarray(aligned(PLAIN))
    taken = take.asarray(given)
    np.testing.assert_array_equal(take.to_numpy(taken), PLAIN)
    # JAX is the exception: it copies what NumPy owns, since it must never see a later write.
    assert (address(given) == address(taken)) is ((giver, taker) != ("numpy", "jax"))
    if giver != "jax":
        cast = take.asarray(give.asarray(PLAIN.astype(np.float64)), dtype=take.xp.float32)
        assert cast.dtype == take.xp.float32


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float64"])
@pytest.mark.parametrize("layout", ["plain", "transposed", "every second"])
@pytest.mark.parametrize(("giver", "taker"), PAIRS)
def test_dtypes_and_layouts_cross_libraries(giver, taker, layout, dtype):
    for name in (giver, taker):
        if name != "numpy":
            pytest.importorskip(name)
    give, take = get_backend(giver + ":cpu"), get_backend(taker + ":cpu")
    given, expected = give.asarray(PLAIN.astype(dtype)), PLAIN.astype(dtype)
    if layout == "transposed":
        given, expected = give.xp.matrix_transpose(given), expected.T
    if layout == "every second":
        given, expected = given[:, ::2], expected[:, ::2]
    taken = take.asarray(given)
    assert taken.dtype == getattr(take.xp, dtype)
    np.testing.assert_array_equal(take.to_numpy(taken), expected)


@pytest.mark.parametrize("taker", ["numpy", "torch", "jax", "strict"])
def test_a_tensor_that_records_gradients_is_refused(taker):
    torch = pytest.importorskip("torch")
    if taker != "numpy":
        pytest.importorskip({"strict": "array_api_strict"}.get(taker, taker))
    leaf = torch.ones(2, 2, requires_grad=True)
    for tensor in (leaf, leaf * 2.0):
        with pytest.raises(InvalidTypeError, match=r"requires_grad=True.*Fix: pass x\.detach\(\)") as caught:
            get_backend(taker).asarray(tensor)
        assert isinstance(caught.value, TypeError)
    assert get_backend(taker).asarray(leaf.detach()).shape == (2, 2)


def test_a_default_jax_has_no_float64():
    # The other tests switch float64 on before JAX is imported; users do not.
    pytest.importorskip("jax")
    program = """
import numpy as np, warnings
warnings.simplefilter("error")
from bpxp.backends import get_backend
backend = get_backend("jax")
xp = backend.xp
x = backend.asarray(np.ones((2, 3), np.float32))
assert x.dtype == xp.float32, x.dtype
assert backend.asarray(np.array([1, 2], np.int32)).dtype == xp.int32
assert (xp.matmul(x, xp.ones((3, 1), dtype=xp.float32)) * 2.0).dtype == xp.float32
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    subprocess.run([sys.executable, "-c", program], check=True, env=env, timeout=120)
