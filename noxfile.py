#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.5"]
# ///
"""What developers and the continuous integration run: ``nox -l`` lists it, ``nox -s tests lint`` runs a part.

A fresh machine needs ``pip install nox`` and nothing else; uv is used where it is installed.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
# What the test session of a backend installs: an extra of the package, and groups.
BACKENDS = {
    "numpy": ("", ["test"]),
    "strict": ("", ["test"]),
    "torch": ("", ["test", "torch-cpu"]),
    "jax": ("[jax]", ["test"]),
    "cupy": ("[cuda13]", ["test"]),
}


def group(*names: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, *names))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on NumPy and array-api-strict: quick, and nothing heavy to download."""
    session.install("-e", ".", *group("test"))
    pytest(session, "numpy,strict")


# pip, not uv: where a wheel of torch for the CPU lies in pip's own find-links or index, it shall be found.
@nox.session(default=False, venv_backend="virtualenv")
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def backend(session: nox.Session, backend: str) -> None:
    """Run the tests on one array library, which must work here."""
    extra, groups = BACKENDS[backend]
    session.install("-e", f".{extra}", *group(*groups))
    # What does not depend on the library is what `tests` has run.
    pytest(session, backend, BPXP_TEST_ONLY_BACKENDS="1")


@nox.session(default=False)
def cupy_cpu(session: nox.Session) -> None:
    """Run the tests on the published CuPy wheel with a simulated CUDA device, tests/cudasim: Linux x86-64, g++."""
    if shutil.which("g++") is None:
        session.error("the kernels are compiled by g++: apt-get install g++")
    session.install("-e", ".", *group("test", "cupy-cpu"))
    simulated = ["-p", "cudasim.plugin"]
    plain = {"PYTHONPATH": "tests", "BPXP_TEST_ONLY_BACKENDS": "1", "CUDASIM_DEVICES": "2"}
    captures = ["tests/backends", "tests/training/test_streaming.py", "tests/cudasim"]
    if session.posargs:
        pytest(session, "cupy", *simulated, **plain)
        return
    pytest(session, "cupy", *simulated, **plain)
    pytest(session, "cupy", *simulated, *captures, **plain, CUDASIM_ORDER="random")
    pytest(session, "cupy", *simulated, "tests/operations", **plain, CUDASIM_POOL="0")
    pytest(session, "cupy", *simulated, "tests/operations/test_extremes.py", **plain, CUDASIM_FTZ="1")
    session.run("python", "-m", "cudasim.nvrtc", env={"PYTHONPATH": "tests"})


@nox.session(default=False)
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest versions that the package says it works with."""
    bounds = [re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in PROJECT["project"]["dependencies"]]
    oldest = [f"{name}=={version if '.' in version else f'{version}.0'}.*" for name, version in bounds]
    session.install("-e", ".", *group("test"), *oldest)
    pytest(session, "numpy,strict")


@nox.session(default=False, venv_backend="virtualenv")
def promises(session: nox.Session) -> None:
    """Count kills, interrupts, cut points and more to the full number, and write what came out to docs/promises.md."""
    session.install("-e", ".[jax]", *group("test", "torch-cpu"))
    session.run("python", "tests/promises/measure.py", *session.posargs)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Give random inputs to whatever reads them: ``nox -s fuzz -- idx 10000000``, or ``all 60s``; see tests/fuzz."""
    session.install("-e", ".", *group("test"))
    session.run("python", "-m", "fuzz", *(session.posargs or ["all", "10000000"]), env={"PYTHONPATH": "tests"})


@nox.session(default=False, venv_backend="virtualenv")
def capture(session: nox.Session) -> None:
    """Compare 20,000 random captured steps with the eager ones; 10,000 calls in 8 threads; 200 fits keep nothing."""
    session.install("-e", ".", *group("test", "torch-cpu"))
    files = "backends/test_capture_random.py", "training/test_readers.py", "training/test_lets_go.py"
    line = ("pytest", *(f"tests/{file}" for file in files), "--timeout=7200")
    session.run(*line, *session.posargs, env={"BPXP_NIGHTLY": "1", "BPXP_TEST_BACKENDS": "numpy,torch"})


@nox.session(default=False)
def mutation(session: nox.Session) -> None:
    """Change the mathematics one thing at a time, and see that a test fails: hours on one core, a room some minutes."""
    session.install("-e", ".", *group("test", "mutation"))
    session.run("python", "tests/mutation/measure.py", *session.posargs)


def pytest(session: nox.Session, backends: str, *arguments: str, **environment: str) -> None:
    # A process per core, and so one thread for each: the tests' matrices are small, and JAX compiles a lot.
    environment |= {"BPXP_TEST_BACKENDS": backends, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    session.run("pytest", "-n", "auto", *arguments, *session.posargs, env=environment)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, spelling, the metadata, which room imports which, and the guide of Scientific Python."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell")
    session.run("validate-pyproject", "pyproject.toml")
    session.run("lint-imports")
    session.run("repo-review", ".")  # what does not apply stands in pyproject.toml


@nox.session
def types(session: nox.Session) -> None:
    """Check the type hints of the package, strictly, and the programs of users with them: by mypy and by pyright."""
    session.install("-e", ".", *group("types"))
    session.run("mypy")
    session.run("python", "tests/typing/check.py")


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the pages in docs/; a warning is an error. Their Python runs among the tests."""
    session.install("-e", ".", *group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html", *session.posargs)


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build sdist and wheel, and try the wheel in an environment that has nothing else."""
    session.install("build")
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "-m", "build", "--outdir", folder)
        (wheel,) = Path(folder).glob("*.whl")
        session.run("python", "-m", "venv", f"{folder}/bare")
        python = f"{folder}/bare/{'Scripts/python.exe' if sys.platform == 'win32' else 'bin/python'}"
        session.run(python, "-m", "pip", "install", "--quiet", str(wheel), external=True)
        session.chdir(folder)  # away from the source, so that the wheel is what is imported
        session.run(python, "-c", "import bpxp; print(bpxp.__version__, bpxp.__file__)", external=True)
        session.run(python, "-m", "bpxp", "backends", external=True)
        session.run(python, "-m", "bpxp", "train", "--epochs", "1", external=True)


@nox.session(default=False)
def examples(session: nox.Session) -> None:
    """Run every program in examples/, what takes half an hour for one epoch only, unless `-- long` is said.

    MNIST is downloaded, unless BPXP_DATA_DIR says where it lies.
    """
    session.install("-e", ".[plot,images]", *group("torch-cpu"))
    short = set() if "long" in session.posargs else {"cnn.py", "lenet.py", "mlp_augmented.py"}
    for program in sorted((ROOT / "examples").glob("*.py")):
        session.run("python", str(program), *(["1"] if program.name in short else []))


@nox.session(default=False, venv_backend="virtualenv")
def bench(session: nox.Session) -> None:
    """Measure bpxp beside its peers; the results go to benchmarks/results. `nox -s bench -- mlp cnn` is a part."""
    session.install("-e", ".[jax,plot]", *group("bench", "torch-cpu"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(default=False, venv_backend="none")
def gpu(session: nox.Session) -> None:
    """Test and measure on this machine's GPU, with the libraries that are installed here."""
    session.run("python", "-m", "benchmarks.gpu", *(session.posargs or ["--out", "benchmarks/results"]))


if __name__ == "__main__":
    nox.main()
