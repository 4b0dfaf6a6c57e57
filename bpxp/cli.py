"""The command line: train, evaluate, predict, list the backends, verify gradients and equations, compare backends.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import bpxp
from bpxp.core.aliases import suggestion
from bpxp.core.atomic import check_writable, write_atomically
from bpxp.core.checks import as_path
from bpxp.core.text import drop_broken_pipe, in_options, say, shell_word
from bpxp.errors import BpxpError, InvalidValueError, printable

if TYPE_CHECKING:
    from bpxp.data import Dataset
    from bpxp.verify import Bisection, Certificate, DerivationReport, GradientReport, PrecisionReport

Command = Callable[[argparse.Namespace], int]
COMMANDS: list[tuple[Command, str, tuple[tuple[str, dict[str, Any]], ...]]] = []
SHARE = 0.1  # of the training set: held out, and evaluated after each epoch
DATA_SETS = ("digits", "mnist", "fashion-mnist")

EXAMPLES = """examples:
  bpxp train                                     8x8 digits that come with bpxp, a few seconds
  bpxp train mnist --layers 784,256,10 --epochs 20 --learning-rate 0.5 --out mnist.bpxp
  bpxp train mnist --backend cupy                the same on a CUDA GPU
  bpxp train mnist --checkpoint run.bpxp         save the run after each epoch, and when it is interrupted
  bpxp train mnist --resume run.bpxp             resume it, to the same bits
  bpxp evaluate mnist.bpxp mnist --per-class
  bpxp predict mnist.bpxp seven.png
  bpxp backends
  bpxp certify --backends numpy,torch            float32 and float64, each equation with its rounding bound
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = make_parser()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the help, on any console
    try:
        options = parser.parse_args(arguments)
        options.line = list(sys.argv[1:] if arguments is None else arguments)
        if not hasattr(options, "run"):
            parser.print_help()
            return 2
        if getattr(options, "out", None) is not None:
            check_writable(options.out, 0)  # what would fail at the end fails before the work
        return int(options.run(options))
    except KeyboardInterrupt:
        say("interrupted", sys.stderr)
        return 130
    except (BpxpError, OSError) as error:  # the reason, not a traceback
        say("\n".join([f"bpxp: {in_options(error, options)}", *getattr(error, "__notes__", ())]), sys.stderr)
        return 1
    finally:
        drop_broken_pipe()


def show(text: object) -> None:
    """Print on standard output; without its reader, as in ``bpxp train | head -1``, the command goes on."""
    try:
        say(text)
    except BrokenPipeError:
        drop_broken_pipe()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # which quotes arguments
        super().error(printable(message))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(
        prog="bpxp",
        description="Backpropagation derived by hand, on any array library.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bpxp {bpxp.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="command")
    for run, example, arguments in COMMANDS:
        end, layout = f"example:\n  bpxp {run.__name__} {example}".rstrip(), argparse.RawDescriptionHelpFormatter
        text = run.__doc__
        sub = commands.add_parser(run.__name__, help=text, description=text, epilog=end, formatter_class=layout)
        sub.set_defaults(run=run)
        for name, how in arguments:
            sub.add_argument(name, **how)
    return parser


def command(example: str, *arguments: tuple[str, dict[str, Any]]) -> Callable[[Command], Command]:
    """Make a function a command: its docstring is the help."""

    def add(run: Command) -> Command:
        COMMANDS.append((run, example, arguments))
        return run

    return add


def argument(name: str, text: str, /, **how: Any) -> tuple[str, dict[str, Any]]:
    """Return an argument of a command, with its help."""
    return name, {"help": text, **how}


def layers(text: str) -> list[Any]:
    """Read ``"784,256,relu,10"``: sizes, and names of activations among them."""
    known = bpxp.nn.ACTIVATIONS
    try:
        return [known[part] if part in known else int(part) for part in text.split(",")]
    except ValueError:
        near = " ".join(filter(None, (suggestion(part, known) for part in text.split(",") if part not in known)))
        what = f"{text!r} is not a list of sizes like 784,256,10 or 784,256,relu,10. {near}"
        raise argparse.ArgumentTypeError(what.strip()) from None


def sizes(text: str) -> list[int]:
    """Read ``"784,256,10"``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of sizes like 784,256,10") from None


def file(text: str) -> Path:
    """Return the path of a file; an empty one is refused."""
    try:
        return as_path(text, "file")
    except InvalidValueError as error:
        raise argparse.ArgumentTypeError(error.brief) from None


BACKEND = argument("--backend", "numpy, cupy, torch, torch:cuda, jax, … (default: BPXP_BACKEND or auto)")
MODEL = argument("model", "a file that train --out or Network.save wrote")
OTHER_DATA = "mnist, fashion-mnist or a folder of IDX files"
RATE = argument("--learning-rate", "default: 0.5 for sgd, else the optimizer's own", type=float)
RESUME = "go on from where --checkpoint saved the run, with the options of that run; and save it there again"
TRIAL = (  # of commands that train a network to examine it
    argument("model", "a saved network; default: a new one, see --layers", nargs="?"),
    argument("--layers", "of a new network; default: 784,30,10", type=layers, default=[784, 30, 10]),
    argument("--data", f"digits, {OTHER_DATA} (default: random samples)"),
    argument("--batch-size", "default: 10", type=int, default=10),
    argument("--optimizer", "default: sgd", default="sgd"),
    RATE,
    argument("--out", "write everything as JSON", metavar="FILE", type=file),
)


def read_data(name: str) -> tuple[Dataset, Dataset]:
    """Return the train and test sets of that name, or of a folder."""
    from bpxp import data

    readers = {"digits": data.digits, "mnist": data.mnist, "fashion-mnist": data.fashion_mnist}
    folder = as_path(name, "data")
    if folder.is_dir():
        return data.folder_dataset(folder)
    if name not in readers:
        raise InvalidValueError("data", f"{name!r} is neither {', '.join(DATA_SETS)} nor a folder", code="E003")
    return readers[name]()


def network(options: argparse.Namespace, layers: list[Any]) -> bpxp.Network:
    """Return the network that the options of ``bpxp train`` describe."""
    names = ("hidden", "init", "dtype", "backend", "seed")
    return bpxp.Network(layers, **{name: getattr(options, name) for name in names})


def optimizer(options: argparse.Namespace) -> bpxp.optim.Optimizer:
    """Return the optimizer that the options describe."""
    usual = 0.5 if options.optimizer == "sgd" else None
    return bpxp.optim.get_optimizer(
        options.optimizer, usual if options.learning_rate is None else options.learning_rate
    )


@command(
    "mnist --epochs 20",
    BACKEND,
    argument("data", f"digits (default), {OTHER_DATA}", nargs="?", default="digits"),
    argument("--layers", "sizes, input first: 784,256,10 or 784,256,relu,10 (default: one hidden layer)", type=layers),
    argument("--hidden", "activation of hidden layers (default: sigmoid)", default="sigmoid"),
    argument("--init", "how weights are drawn (default: glorot_uniform)", default="glorot_uniform"),
    argument("--dtype", "default: float32", default="float32", choices=("float32", "float64")),
    argument("--optimizer", "sgd, momentum, nesterov, rmsprop, adagrad, adam, adamw", default="sgd"),
    RATE,
    argument("--epochs", "default: 80", type=int, default=80),
    argument("--batch-size", "default: 20", type=int, default=20),
    argument("--seed", "default: 0", type=int, default=0),
    argument("--out", "save the network", metavar="FILE", type=file),
    argument("--checkpoint", "save the run after each epoch, and when it is interrupted", metavar="FILE", type=file),
    argument("--checkpoint-steps", "save it after every N steps, too", metavar="N", type=int),
    argument("--resume", RESUME, metavar="FILE", type=file),
    argument("--quiet", "no progress", action="store_true"),
)
def train(options: argparse.Namespace) -> int:
    """Train a network on nine tenths of the training set, and print its accuracy on the test set."""
    path = options.checkpoint or options.resume
    if options.checkpoint_steps is not None and path is None:
        what, fix = "there is no file to save the run to", "--checkpoint run.bpxp"
        raise InvalidValueError("--checkpoint-steps", what, code="E005", fix=fix, after="")
    training, test = read_data(options.data)
    pixels = math.prod(training.x.shape[1:])
    layers = options.layers or [pixels, min(pixels, 100), len(training.classes)]
    net = network(options, layers)
    if options.out is not None:
        check_writable(options.out, 8 * net.size)
    if not options.quiet:
        show(net)
    callbacks = [bpxp.callbacks.Checkpoint(path, steps=options.checkpoint_steps)] if path else []
    if options.out is None and not callbacks:
        show("the network will not be saved: --out FILE saves it")
    trainer = bpxp.Trainer(net, optimizer(options), callbacks=callbacks, progress=not options.quiet)
    trainer.how_to_resume, trainer.how_to_save = lambda file: resuming(options.line, file), "--checkpoint run.bpxp"
    sizes = {"epochs": options.epochs, "batch_size": options.batch_size}
    validation = SHARE if len(training) >= 1 / SHARE else None  # the test set is seen once, at the end
    trainer.fit(training, **sizes, validation=validation, resume=options.resume or False)
    found = net.evaluate(test)
    if options.out is not None:
        net.save(options.out)
        show(f"saved: {options.out}")
    show(f"test accuracy: {found['accuracy']:.4f}")
    return 0


def resuming(line: Sequence[str], file: str) -> str:
    """Return the command line that goes on from a file."""
    kept: list[str] = []
    for word in line:
        if kept and kept[-1] == "--resume":
            kept.pop()
        elif not word.startswith("--resume="):
            kept.append(word)
    return " ".join(map(shell_word, ["bpxp", *kept, "--resume", file]))


@command(
    "model.bpxp mnist",
    BACKEND,
    MODEL,
    argument("data", f"digits, {OTHER_DATA}", nargs="?", default="digits"),
    argument("--per-class", "precision, recall and F1 of each class, too", action="store_true"),
)
def evaluate(options: argparse.Namespace) -> int:
    """Print loss and accuracy of a saved network."""
    net = bpxp.Network.load(options.model, backend=options.backend)
    _, test = read_data(options.data)
    per_class = [bpxp.metrics.PrecisionRecallF1(per_class=True)] if options.per_class else []
    found = net.evaluate(test, metrics=["accuracy", *per_class])
    if options.per_class:
        names = test.classes or [str(k) for k in range(net.output_shape[-1])]
        width = max(len(name) for name in ("class", *names))
        show(f"{'class':<{width}}  precision  recall      f1")
        for k, name in enumerate(names):
            precision, recall, f1 = (found["class"][f"{what}_{k}"] for what in ("precision", "recall", "f1"))
            show(f"{name:<{width}}  {precision:9.4f}  {recall:6.4f}  {f1:6.4f}")
    show(f"test loss: {found['loss']:.4f}\ntest accuracy: {found['accuracy']:.4f}")
    return 0


@command(
    "model.bpxp seven.png",
    BACKEND,
    MODEL,
    argument("images", "PNG, JPEG, … or .npy", nargs="+"),
    argument("--as-is", "only resize: no cropping, inverting, centring", action="store_true"),
)
def predict(options: argparse.Namespace) -> int:
    """Recognise digits in pictures."""
    from bpxp.data.images import load_digit, picture_size

    net = bpxp.Network.load(options.model, backend=options.backend)
    pictures = [load_digit(path, net.input_shape, prepare=not options.as_is) for path in options.images]
    for path, picture in zip(options.images, pictures, strict=True):  # not stacked: they may have several dtypes
        (row,) = net.backend.to_numpy(net.predict_proba(picture.reshape(1, *picture_size(net.input_shape), 1)))
        show(f"{path}: {int(row.argmax())} ({row.max():.3f})")
    return 0


@command("")
def backends(options: argparse.Namespace) -> int:
    """List the array libraries, and why one does not work here."""
    for name, info in bpxp.available_backends().items():
        version = f" {info.version}" if info.version else ""
        reason = f"  {info.reason}" if info.reason else ""
        show(f"{name:<7}{'available' if info.available else 'not available':<14}{version}{reason}")
    show(f"default: {bpxp.get_backend().name}")
    return 0


@command("run.diverged.bpxp", argument("file", "the file that a diverged run wrote next to its checkpoint"))
def replay(options: argparse.Namespace) -> int:
    """Repeat the step of a run that diverged, in float64, layer by layer."""
    show(bpxp.replay(options.file))
    return 0


@command("--backend torch", BACKEND, argument("model", "a saved network; default: everything that bpxp has", nargs="?"))
def verify(options: argparse.Namespace) -> int:
    """Check hand-derived gradients against the loss, and the code against its equations."""
    from bpxp.backends.dtypes import has_float64
    from bpxp.verify import check_equations
    from bpxp.verify.equations.catalogue import check_all
    from bpxp.verify.survey import check_model, survey

    gradients = "gradients, against the loss:"
    equations = "equations, as slow loops against the code:"
    if options.model:
        net = bpxp.Network.load(options.model, backend=options.backend)
        show(f"{gradients}\n{check_model(net)}\n\n{equations}\n{check_equations(net)}")
        return 0
    backend = bpxp.get_backend(options.backend)
    print_worst(gradients, survey(options.backend))
    print_worst(f"\n{equations}", check_all(backend if has_float64(backend) else "numpy"))
    return 0


def trial_of(options: argparse.Namespace) -> tuple[bpxp.Network, Any, dict[str, Any]]:
    """Return network, data and options of a command that trains a network to examine it."""
    if options.model:
        net = bpxp.Network.load(options.model, backend="numpy")
    else:
        net = bpxp.Network(options.layers, backend="numpy", seed=0)
    data = None if options.data is None else read_data(options.data)[0]
    return net, data, {"batch_size": options.batch_size, "optimizer": optimizer(options)}


@command(
    "model.bpxp --data digits --out certificate.json",
    argument("--backends", "numpy,torch,torch:cuda, … (default: every library)"),
    argument("--dtypes", "default: float32,float64", default="float32,float64"),
    argument("--steps", "default: 100", type=int, default=100),
    *TRIAL,
)
def certify(options: argparse.Namespace) -> int:
    """Train on every backend, and hold each equation of each step against float64 with its rounding bound."""
    net, data, how = trial_of(options)
    backends, dtypes = options.backends and options.backends.split(","), options.dtypes.split(",")
    found = bpxp.verify.certify(net, backends, data, steps=options.steps, dtypes=dtypes, **how)
    return report(found, options.out, found.ok)


@command(
    "numpy cupy model.bpxp",
    argument("first", "numpy, cupy, torch, …"),
    argument("second", "another one"),
    argument("--dtype", "default: the network's", choices=("float32", "float64")),
    argument("--steps", "default: 10", type=int, default=10),
    *TRIAL,
)
def bisect(options: argparse.Namespace) -> int:
    """Train on two backends in lock-step, and stop at the first equation in which they differ."""
    net, data, how = trial_of(options)
    how |= {"steps": options.steps, "dtype": options.dtype}
    found = bpxp.verify.bisect(net, options.first, options.second, data, **how)
    return report(found, options.out, found.difference is None)


@command(
    "model.bpxp --backend torch --matmul bfloat16",
    BACKEND,
    argument("--matmul", "float32, tf32, bfloat16 or float16: operands of matrix products"),
    argument("--at", "default: 1,10,100", type=sizes, default=[1, 10, 100], metavar="STEPS"),
    *TRIAL,
)
def xray(options: argparse.Namespace) -> int:
    """Print the true relative error of every delta and gradient, by a float64 shadow of chosen steps."""
    net, data, how = trial_of(options)
    found = bpxp.verify.xray(net, data, backend=options.backend, matmul=options.matmul, steps=options.at, **how)
    return report(found, options.out)


def report(found: Certificate | Bisection | PrecisionReport, path: Path | None, ok: bool = True) -> int:
    """Print what was found, write it to a file, if there is one, and return the exit code."""
    show(found)
    if path is not None:
        write_atomically(path, f"{found.to_json()}\n".encode())
        show(f"saved: {path}")
    return 0 if ok else 1


def print_worst(title: str, reports: Iterable[tuple[str, GradientReport | DerivationReport]]) -> None:
    """Print a line for each report, as soon as it is there, and the worst of all."""
    worst = 0.0
    show(title)
    for name, report in reports:
        worst = max(worst, report.worst)
        show(f"{name:<45} {report.worst:.1e}")
    show(f"largest relative error: {worst:.1e}")
