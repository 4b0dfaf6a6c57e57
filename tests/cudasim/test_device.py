"""The simulated device: what it needs of CuPy's wheel, and what it makes of programs that do not wait."""

from __future__ import annotations

import contextlib
import sys

import pytest

if "cudasim.plugin" not in sys.modules:  # CuPy may have been imported without the device
    pytest.skip("runs with pytest -p cudasim.plugin", allow_module_level=True)

import cupy
import cupyx
import numpy as np

import cudasim

RUNTIME, CUB, THRUST = cudasim.PATCHED
# What CuPy calls: it must be in the wheel by this name, or the real runtime would be called.
CALLED = """
cudaDeviceCanAccessPeer cudaDeviceGetAttribute cudaDeviceSynchronize cudaDriverGetVersion cudaEventCreateWithFlags
cudaEventDestroy cudaEventQuery cudaEventRecord cudaEventSynchronize cudaFree cudaFreeHost cudaGetDevice
cudaGetDeviceCount cudaGetDeviceProperties cudaGetErrorName cudaGetErrorString cudaGetLastError cudaGraphDestroy
cudaGraphExecDestroy cudaGraphInstantiate cudaGraphLaunch cudaGraphUpload cudaHostAlloc cudaMalloc cudaMallocManaged
cudaMemcpy cudaMemcpyAsync cudaMemcpyPeer cudaMemcpyPeerAsync cudaMemGetInfo cudaMemset cudaMemsetAsync
cudaPointerGetAttributes cudaRuntimeGetVersion cudaSetDevice cudaStreamBeginCapture cudaStreamCreate
cudaStreamCreateWithFlags cudaStreamDestroy cudaStreamEndCapture cudaStreamIsCapturing cudaStreamSynchronize
cudaStreamWaitEvent
""".split()


@pytest.fixture(autouse=True)
def lazy():
    with cudasim.order("lazy"):
        yield


def test_the_wheel_has_what_is_replaced():
    runtime = cudasim.replacements(cudasim.site(RUNTIME))
    assert {name for name in CALLED if runtime.get(name) != name} == set()
    found = cudasim.replacements(cudasim.site(CUB)) | cudasim.replacements(cudasim.site(THRUST))
    assert {name: found.get(name) for name in cudasim.STAND_INS} == cudasim.STAND_INS


def test_files_of_the_wheel_are_as_they_were_published():
    import base64
    import hashlib
    import importlib.metadata

    for file in importlib.metadata.files("cupy-cuda13x") or []:
        if any(file.match(pattern) for pattern in (*cudasim.PATCHED, cudasim.BLAS)):
            digest = hashlib.sha256(file.locate().read_bytes()).digest()
            assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == file.hash.value


def test_kernels_reductions_sorts_and_products_compute(rng):
    x = rng.standard_normal((37, 53)).astype(np.float32)
    a = cupy.asarray(x)
    np.testing.assert_allclose(cupy.exp(a * 2 - 1).get(), np.exp(x * 2 - 1), rtol=1e-6)
    for axis in (0, 1, None):
        np.testing.assert_allclose(a.sum(axis=axis).get(), x.sum(axis=axis), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(a.max(axis=axis).get(), x.max(axis=axis))
        np.testing.assert_array_equal(a.argmin(axis=axis).get(), x.argmin(axis=axis))
        np.testing.assert_array_equal((a > 0).all(axis=axis).get(), (x > 0).all(axis=axis))
    np.testing.assert_array_equal(cupy.sort(a, axis=1).get(), np.sort(x, axis=1))
    np.testing.assert_array_equal(cupy.argsort(a, axis=0).get(), np.argsort(x, axis=0))
    np.testing.assert_allclose(cupy.cumsum(a, axis=1).get(), np.cumsum(x, axis=1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose((a @ a.T).get(), x @ x.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(a.astype(cupy.float16).get(), x.astype(np.float16))


# ---------------------------------------------------------------- who does not wait is wrong, always


@pytest.fixture
def stream():
    return cupy.cuda.Stream(non_blocking=True)


def test_work_waits_until_something_waits_for_it(stream):
    pinned, a = cupyx.zeros_pinned((4,), np.float32), cupy.zeros(4, dtype=np.float32)
    cupy.cuda.Stream.null.synchronize()
    a.set(pinned, stream=stream)
    pinned[...] = 1  # before it was copied
    stream.synchronize()
    assert (a.get() == 1).all()
    a.set(pinned, stream=stream)
    stream.synchronize()
    pinned[...] = 2
    assert (a.get() == 1).all()
    a.set(np.full(4, 3, np.float32), stream=stream)  # pageable memory is read at once
    stream.synchronize()
    assert (a.get() == 3).all()


def test_a_stream_that_does_not_wait_for_another_reads_what_was_there_before(stream):
    a = cupy.zeros(4, dtype=np.float32)
    cupy.cuda.Stream.null.synchronize()
    a += 1
    with stream:
        early = a * 1
        stream.synchronize()
    assert (early.get() == 0).all()
    event = cupy.cuda.Stream.null.record()
    stream.wait_event(event)
    with stream:
        assert ((a * 1).get() == 1).all()
    blocking = cupy.cuda.Stream()  # waits for the default stream without being asked
    a += 1
    with blocking:
        assert ((a * 1).get() == 2).all()


def test_memory_that_was_never_written_holds_no_numbers():
    memory = cupy.cuda.MemoryPointer(cupy.cuda.Memory(32), 0)
    assert np.isnan(cupy.ndarray(8, np.float32, memory).get()).all()


READ = cupy.RawKernel(
    'extern "C" __global__ void read_at(const float* x, long long i, float* out) { out[0] = x[i]; }', "read_at"
)


@pytest.mark.parametrize("which", ["past the end", "before the beginning", "freed"])
def test_an_access_of_other_memory_breaks_the_device(which, capfd):
    memory, out = cupy.cuda.Memory(4096), cupy.zeros(1, dtype=np.float32)
    a = cupy.ndarray(1024, np.float32, cupy.cuda.MemoryPointer(memory, 0))
    address, index = a.data.ptr, {"past the end": 1024, "before the beginning": -1, "freed": 0}[which]
    if which == "freed":
        del a, memory
    READ((1,), (1,), (np.uint64(address), np.int64(index), out))
    for _ in range(2):
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorIllegalAddress"):
            cupy.cuda.Stream.null.synchronize()
    assert f"cudasim: read_at touches {address + 4 * index:#x}, memory " in capfd.readouterr().err
    cudasim.repair()


def test_memory_has_an_end():
    with cudasim.memory_left(1 << 20):
        cupy.cuda.Memory(1 << 19)
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorMemoryAllocation"):
            cupy.cuda.Memory(2 << 20)


def test_shared_memory_and_barriers(rng):
    source = """extern "C" __global__ void reverse(float* x) {
        extern __shared__ float kept[];
        kept[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
        __syncthreads();
        x[blockIdx.x * blockDim.x + threadIdx.x] = kept[blockDim.x - 1 - threadIdx.x];
    }"""
    x = rng.random(4 * 64, dtype=np.float32)
    a = cupy.asarray(x)
    cupy.RawKernel(source, "reverse")((4,), (64,), (a,), shared_mem=256)
    np.testing.assert_array_equal(a.get(), x.reshape(4, 64)[:, ::-1].reshape(-1))


# ---------------------------------------------------------------- captures


@contextlib.contextmanager
def captured(stream):
    with stream:
        stream.begin_capture()
        try:
            yield
        finally:
            with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):
                stream.end_capture()


def test_a_graph_does_again_what_was_captured(stream):
    a = cupy.zeros(3, dtype=np.float32)
    cupy.cuda.Stream.null.synchronize()
    with stream:
        stream.begin_capture()
        a += 1
        a *= 2
        graph = stream.end_capture()
    assert (a.get() == 0).all()
    for _ in range(3):
        graph.launch()
    assert (a.get() == 14).all()


def test_what_a_capture_forbids_ends_it(stream):
    a, event = cupy.zeros(3), cupy.cuda.Stream.null.record()
    error = cupy.cuda.runtime.CUDARuntimeError
    with captured(stream), pytest.raises(error, match="cudaErrorStreamCaptureUnsupported"):
        cupy.cuda.Device().synchronize()
    with captured(stream), pytest.raises(error, match="cudaErrorStreamCaptureIsolation"):
        stream.wait_event(event)
    with captured(stream), pytest.raises(RuntimeError, match="capturing"):
        a.get()
    with stream:
        stream.begin_capture()
        with cupy.cuda.Stream.null, pytest.raises(error):
            cupy.cuda.Device().synchronize()
        with pytest.raises(error, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()


def test_cublas_refuses_wrong_pitches_and_devices():
    from bpxp.backends.cupy.cublas import Blas

    blas, a = Blas(), cupy.ones((4, 4), dtype=np.float32)
    one = blas._scalars["float32"][0]
    matrix = (a.data.ptr, 0, 3)  # a pitch of 3 for 4 rows
    with pytest.raises(RuntimeError, match="status 7"):
        blas.cublas.gemm_ex(blas.handle, 0, 0, 4, 4, 4, one, *matrix, *matrix, one, *matrix, 68, -1)
    if cupy.cuda.runtime.getDeviceCount() > 1:
        matrix = (a.data.ptr, 0, 4)
        with cupy.cuda.Device(1), pytest.raises(RuntimeError, match="status 14"):
            blas.cublas.gemm_ex(blas.handle, 0, 0, 4, 4, 4, one, *matrix, *matrix, one, *matrix, 68, -1)


def test_kernels_that_do_not_compile_are_errors():
    with pytest.raises(cupy.cuda.compiler.CompileException, match="nonsense"):
        cupy.RawKernel('extern "C" __global__ void f(float* x) { x[0] = nonsense; }', "f").compile()
