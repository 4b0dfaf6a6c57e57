"""The benchmarks on a CPU: which work, which peers, what is to be reached; ``python -m benchmarks --list``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.harness import Case
from benchmarks.peers.work import Work
from benchmarks.report import Goal

STEP = "ms per step"
TORCH, SLICED, LAST = "PyTorch eager", "PyTorch eager, sliced", "PyTorch eager, channels last"
SKLEARN, JIT, SCAN = "scikit-learn MLPClassifier", "JAX optax, jit", "JAX optax, scan"
TEXTBOOK = "textbook NumPy"
FLOORS = ("floor: numpy matmuls", "floor: torch matmuls", "floor: jax matmuls")

KERAS = (("KERAS_BACKEND", "torch"),)

# name of a case: program, its arguments, its environment
PEERS: dict[str, tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]] = {
    FLOORS[0]: ("matmuls", ("--library", "numpy"), ()),
    "bpxp numpy": ("bpxp_fit", ("--backend", "numpy"), ()),
    TORCH: ("torch_eager", (), ()),
    "bpxp torch": ("bpxp_fit", ("--backend", "torch"), ()),
    FLOORS[1]: ("matmuls", ("--library", "torch"), ()),
    SLICED: ("torch_eager", ("--batches", "slice"), ()),
    LAST: ("torch_eager", ("--channels-last",), ()),
    "PyTorch compiled": ("torch_eager", ("--compile", "default"), ()),
    "PyTorch DataLoader": ("torch_eager", ("--batches", "loader"), ()),
    JIT: ("jax_optax", (), ()),
    "bpxp jax": ("bpxp_fit", ("--backend", "jax"), ()),
    SCAN: ("jax_optax", ("--scan",), ()),
    FLOORS[2]: ("matmuls", ("--library", "jax"), ()),
    SKLEARN: ("sklearn_mlp", (), ()),
    "bpxp numpy, uint8 pixels": ("bpxp_fit", ("--backend", "numpy", "--pixels"), ()),
    "bpxp torch, uint8 pixels": ("bpxp_fit", ("--backend", "torch", "--pixels"), ()),
    TEXTBOOK: ("textbook", (), ()),
    "Thinc": ("thinc_mlp", (), ()),
    "Keras on torch": ("keras_fit", (), KERAS),
    "Keras on JAX": ("keras_fit", (), (("KERAS_BACKEND", "jax"),)),
}
WHOLE = ("bpxp numpy, a fit per epoch", "bpxp torch, a fit per epoch")
PEERS |= {name: ("bpxp_fit", ("--backend", name[5:10], "--whole"), ()) for name in WHOLE}
BPXP = ("bpxp numpy", "bpxp torch", "bpxp jax")
ALL = tuple(name for name in PEERS if name != LAST)

# From a memory-mapped file, each beside the same with its data on the device.
LOADED, LOADED_BESIDE = "PyTorch DataLoader, mapped file", "PyTorch DataLoader, mapped file, a worker process"
PEERS |= {f"{name}, streamed": ("bpxp_fit", ("--backend", name[5:], "--streamed"), ()) for name in BPXP}
PEERS |= {
    LOADED: ("torch_eager", ("--batches", "mapped"), ()),
    LOADED_BESIDE: ("torch_eager", ("--batches", "mapped", "--workers", "1"), ()),
}

IMPORT = """
from time import perf_counter as now
begun = now()
import {}
print('{{"value":', 1e3 * (now() - begun), '}}')
"""

MLP = Work()
SMALL = Work(net="784-30-10", batch=10, samples=20_000)
LARGE_BATCH = Work(batch=512)
WIDE = Work(net="784-4096-4096-10", batch=1024, samples=2048, hidden="relu", learning_rate=0.1)
ADAM = Work(optimizer="adam", learning_rate=1e-3)
CNN = Work(net="28x28x1-conv16-conv32-10", samples=1600, learning_rate=0.05)
MNIST = Work(data="mnist", samples=60_000, hidden="relu", learning_rate=0.3)


@dataclass(frozen=True)
class Benchmark:
    """Cases that take turns, the peers whose ratios the table shows, and what is to be reached."""

    name: str
    title: str
    unit: str
    cases: tuple[Case, ...]
    references: tuple[str, ...] = ()
    goals: tuple[Goal, ...] = ()
    rounds: int = 5


def case(name: str, work: Work, *more: str, fresh: bool = False) -> Case:
    """Return a peer's case for a work."""
    program, arguments, environment = PEERS[name]
    command = ("-m", f"benchmarks.peers.{program}", "--work", work.to_json(), *arguments, *more)
    return Case(name, command, environment, fresh)


def cases(names: tuple[str, ...], work: Work) -> tuple[Case, ...]:
    """Return the cases of some peers, in the order of `PEERS`: who is compared runs one after the other."""
    return tuple(case(name, work) for name in PEERS if name in names)


def benchmarks(quick: bool = False) -> list[Benchmark]:
    """Return the benchmarks that are tables; with `quick` each does next to nothing, once."""
    found = [*steps(quick), *streams(quick), race(quick), memory(quick), imports(), installed()]
    return [replace(benchmark, rounds=1) for benchmark in found] if quick else found


def steps(quick: bool) -> list[Benchmark]:
    """Return the benchmarks of training steps."""

    def of(work: Work) -> Work:
        return work.quick() if quick else work

    eager = (TORCH, SLICED)
    narrow = (*BPXP, *FLOORS, TORCH, SLICED, JIT, SCAN, TEXTBOOK)
    return [
        Benchmark(
            "mlp",
            "784-256-10, batch 64, float32, plain SGD",
            STEP,
            cases(ALL, of(MLP)),
            (TORCH, SKLEARN, JIT),
            (
                Goal("784-256-10, batch 64: numpy / PyTorch eager", "bpxp numpy", eager, 0.7),
                Goal("the same, whole calls of fit on host arrays", WHOLE[0], eager, 0.75),
                Goal("numpy / scikit-learn", "bpxp numpy", (SKLEARN,), 0.5),
                Goal("torch backend / PyTorch eager", "bpxp torch", eager, 0.5),
                Goal("the same, whole calls of fit on host arrays, torch", WHOLE[1], eager, 0.6),
                Goal("jax backend / optax jit", "bpxp jax", (JIT,), 0.95),
            ),
        ),
        Benchmark(
            "mlp-small",
            "784-30-10, batch 10, float32, plain SGD",
            STEP,
            cases((*narrow, *WHOLE, SKLEARN, "PyTorch DataLoader", "Thinc", "Keras on JAX"), of(SMALL)),
            (TORCH, TEXTBOOK),
            (
                Goal("784-30-10, batch 10: numpy / PyTorch eager", "bpxp numpy", eager, 0.2),
                Goal("the same, whole calls of fit on host arrays", WHOLE[0], eager, 0.25),
            ),
        ),
        Benchmark(
            "mlp-512",
            "784-256-10, batch 512, float32, plain SGD",
            STEP,
            cases((*narrow, SKLEARN), of(LARGE_BATCH)),
            (FLOORS[0], TORCH),
            (Goal("batch 512: numpy / its own matmul floor", "bpxp numpy", (FLOORS[0],), 1.5),),
        ),
        Benchmark(
            "mlp-wide",
            "784-4096-4096-10, batch 1024, float32, plain SGD",
            STEP,
            cases((*BPXP, *FLOORS, TORCH, SCAN), of(WIDE)),
            FLOORS,
            tuple(
                Goal(f"784-4096-4096-10, batch 1024: {name[5:]} / its matmul floor", name, (floor,), 1.15)
                for name, floor in zip(BPXP, FLOORS, strict=True)
            ),
            rounds=3,
        ),
        Benchmark(
            "mlp-adam",
            "784-256-10, batch 64, float32, Adam",
            STEP,
            cases((*BPXP, TORCH, "PyTorch compiled", JIT, SCAN, SKLEARN, "Thinc", "Keras on JAX"), of(ADAM)),
            (TORCH, JIT),
        ),
        Benchmark(
            "cnn",
            "conv 16 and 32, 3×3, pooling, dense; 28×28×1, batch 64, float32, plain SGD",
            STEP,
            cases((*BPXP, TORCH, LAST, "PyTorch compiled", JIT, "Keras on torch", "Keras on JAX"), of(CNN)),
            (TORCH, JIT),
            (
                Goal("CNN 16-32, batch 64: numpy / PyTorch eager", "bpxp numpy", (TORCH,), 1.5),
                Goal("the same, torch backend / PyTorch eager", "bpxp torch", (TORCH,), 1.0),
                Goal("the same, numpy / the faster of PyTorch's two layouts", "bpxp numpy", (TORCH, LAST), 1.5),
                Goal("the same, torch backend / the faster layout", "bpxp torch", (TORCH, LAST), 1.0),
            ),
        ),
    ]


def streams(quick: bool) -> list[Benchmark]:
    """Return what it costs that the data are a file, and not on the device."""
    found = []
    for name, title, work in (
        ("stream", "784-256-10, batch 64, from a memory-mapped file of 96 MB", MLP),
        ("stream-cnn", "conv 16 and 32, batch 64, from a memory-mapped file", CNN),
    ):
        pairs = [(f"{own}, streamed", own) for own in BPXP]
        names = (*(case for pair in pairs for case in reversed(pair)), TORCH, LOADED, LOADED_BESIDE)
        what = title.partition(",")[0]
        goals = tuple(Goal(f"{what}: {a} / resident", a, (b,), 1.11) for a, b in pairs)
        goals += (Goal(f"{what}: {pairs[1][0]} / a DataLoader", pairs[1][0], (LOADED, LOADED_BESIDE), 1.0),)
        runs = tuple(case(peer, work.quick() if quick else work) for peer in names)
        found.append(Benchmark(name, title, STEP, runs, (*BPXP, TORCH), goals))
    return found


def race(quick: bool) -> Benchmark:
    """Return the race to 98 % on MNIST: seconds of training, a new seed in each round."""
    names = (*BPXP, TORCH, SCAN, SKLEARN, TEXTBOOK)
    work, until = (MNIST.quick(), "0.2") if quick else (MNIST, "0.98")
    runs = [case(name, work, "--until", until, "--seed", "{round}", fresh=True) for name in PEERS if name in names]
    title = "MNIST to 98 %: 784-256-10, ReLU, batch 64, float32, plain SGD 0.3"
    return Benchmark("mnist", title, "s of training", tuple(runs), (TORCH,), rounds=2)


def memory(quick: bool) -> Benchmark:
    """Return the peak memory of a fit ÷ (data + parameters × (2 + optimizer slots) + one batch's activations)."""
    program = ("-m", "benchmarks.peers.memory_bpxp")
    size = ("--samples", "640") if quick else ()
    large = ("--layers", "2000,4000,4000,10", "--samples", "640")  # 24 million parameters, little data
    runs = [
        Case(f"MNIST's size, SGD, {name[5:]}", (*program, *size, "--backend", name[5:]), fresh=True) for name in BPXP
    ]
    for rule in () if quick else ("sgd", "adam"):
        runs += [
            Case(
                f"24 M parameters, {rule}, {name[5:]}",
                (*program, *large, "--optimizer", rule, "--backend", name[5:]),
                fresh=True,
            )
            for name in BPXP
        ]
    return Benchmark("memory", "Peak memory of a fit", "peak ÷ bound", tuple(runs), rounds=1)


def imports() -> Benchmark:
    """Return what an import costs in a fresh Python."""
    # `import bpxp` alone says little: its names bring their modules when they are first used.
    used = "bpxp, numpy; bpxp.Network, bpxp.Trainer, bpxp.optim, bpxp.data"
    wanted = {"import numpy": "numpy", "import bpxp": "bpxp", "import bpxp, and use its names": used}
    wanted |= {f"import {name}": name for name in ("torch", "jax", "sklearn", "keras", "thinc.api")}
    runs = tuple(Case(name, ("-c", IMPORT.format(what)), KERAS, fresh=True) for name, what in wanted.items())
    goals = tuple(Goal(f"{name} / import numpy", name, ("import numpy",), 2.5) for name in list(wanted)[1:3])
    return Benchmark("imports", "Import time", "ms", runs, ("import numpy",), goals, rounds=3)


def installed() -> Benchmark:
    """Return how much disk the packages take."""
    names = ("bpxp", "numpy", "scikit-learn", "torch", "jax", "optax", "keras", "thinc")
    runs = tuple(Case(name, ("-m", "benchmarks.peers.installed", name), fresh=True) for name in names)
    return Benchmark("installed", "Installed size, with all that a package must have", "MB", runs, ("bpxp",), rounds=1)
