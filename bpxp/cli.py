"""The command line: train, evaluate, predict, list the backends, verify gradients and equations, compare backends.

Exit codes: 0 done, 1 failed (the reason is on standard error), 2 wrong usage, 130 interrupted by Ctrl-C, 143 by
SIGTERM.
"""

from __future__ import annotations

import argparse
import io
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpxp
from bpxp.core.atomic import check_writable
from bpxp.errors import BpxpError, InvalidValueError

if TYPE_CHECKING:
    from bpxp.data import Dataset
    from bpxp.verify import DerivationReport, GradientReport

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
    options = parser.parse_args(arguments)
    options.line = list(sys.argv[1:] if arguments is None else arguments)
    if not hasattr(options, "run"):
        parser.print_help()
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file need not be text
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (BpxpError, OSError) as error:  # the reason, not a traceback
        print(f"bpxp: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return 1
    return code


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="bpxp",
        description="Backpropagation derived by hand, on any array library.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bpxp {bpxp.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="command")

    def command(name: str, run: object, text: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    sub = command(
        "train", train, "Train a network and print its accuracy on the test set.", "bpxp train mnist --epochs 20"
    )
    add_training_options(sub)
    sub = command("evaluate", evaluate, "Print loss and accuracy of a saved network.", "bpxp evaluate model.bpxp mnist")
    add_backend(sub)
    sub.add_argument("model", help="a file that train --out or Network.save wrote")
    sub.add_argument("data", nargs="?", default="digits", help="digits, mnist, fashion-mnist or a folder of IDX files")
    sub.add_argument("--per-class", action="store_true", help="precision, recall and F1 of each class, too")
    sub = command("predict", predict, "Recognise digits in pictures.", "bpxp predict model.bpxp seven.png")
    add_backend(sub)
    sub.add_argument("model", help="a file that train --out or Network.save wrote")
    sub.add_argument("images", nargs="+", help="PNG, JPEG, … or .npy")
    sub.add_argument("--as-is", action="store_true", help="only resize: no cropping, inverting, centring")
    text = "Repeat the step of a run that diverged, in float64, layer by layer."
    sub = command("replay", replay, text, "bpxp replay run.diverged.bpxp")
    sub.add_argument("file", help="the file that a diverged run wrote next to its checkpoint")
    command("backends", backends, "List the array libraries, and why one does not work here.", "bpxp backends")
    text = "Check hand-derived gradients against the loss, and the code against its equations."
    sub = command("verify", verify, text, "bpxp verify --backend torch")
    add_backend(sub)
    sub.add_argument("model", nargs="?", help="a saved network; default: everything that bpxp has")
    text = "Train on every backend, and hold each equation of each step against float64 with its rounding bound."
    sub = command("certify", certify, text, "bpxp certify model.bpxp --data digits --out certificate.json")
    sub.add_argument("--backends", help="numpy,torch,torch:cuda, … (default: every library)")
    sub.add_argument("--dtypes", default="float32,float64", help="default: float32,float64")
    add_trial_options(sub, 100)
    text = "Train on two backends in lock-step, and stop at the first equation in which they differ."
    sub = command("bisect", bisect, text, "bpxp bisect numpy cupy model.bpxp")
    sub.add_argument("first", help="numpy, cupy, torch, …")
    sub.add_argument("second", help="another one")
    sub.add_argument("--dtype", choices=("float32", "float64"), help="default: the network's")
    add_trial_options(sub, 10)
    text = "Print the true relative error of every delta and gradient, by a float64 shadow of chosen steps."
    sub = command("xray", xray, text, "bpxp xray model.bpxp --backend torch --matmul bfloat16")
    add_backend(sub)
    sub.add_argument("--matmul", help="float32, tf32, bfloat16 or float16: operands of matrix products")
    sub.add_argument("--at", type=sizes, default=[1, 10, 100], metavar="STEPS", help="default: 1,10,100")
    add_trial_options(sub)
    return parser


def add_trial_options(sub: argparse.ArgumentParser, steps: int | None = None) -> None:
    """Add the options of commands that train a network to examine it."""
    sub.add_argument("model", nargs="?", help="a saved network; default: a new one, see --layers")
    sub.add_argument("--layers", type=sizes, default=[784, 30, 10], help="of a new network; default: 784,30,10")
    sub.add_argument("--data", help="digits, mnist, fashion-mnist or a folder of IDX files (default: random samples)")
    if steps is not None:
        sub.add_argument("--steps", type=int, default=steps, help=f"default: {steps}")
    sub.add_argument("--batch-size", type=int, default=10, help="default: 10")
    sub.add_argument("--optimizer", default="sgd", help="default: sgd")
    sub.add_argument("--learning-rate", type=float, help="default: 0.5 for sgd, else the optimizer's own")
    sub.add_argument("--out", metavar="FILE", help="write everything as JSON")


def add_backend(sub: argparse.ArgumentParser) -> None:
    """Add the option that chooses the array library."""
    sub.add_argument("--backend", help="numpy, cupy, torch, torch:cuda, jax, … (default: BPXP_BACKEND or auto)")


def add_training_options(sub: argparse.ArgumentParser) -> None:
    """Add the options of ``bpxp train``."""
    add_backend(sub)
    sub.add_argument(
        "data", nargs="?", default="digits", help="digits (default), mnist, fashion-mnist or a folder of IDX files"
    )
    sub.add_argument("--layers", type=sizes, help="sizes, input first: 784,256,10 (default: one hidden layer)")
    sub.add_argument("--hidden", default="sigmoid", help="activation of hidden layers (default: sigmoid)")
    sub.add_argument("--init", default="glorot_uniform", help="how weights are drawn (default: glorot_uniform)")
    sub.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    sub.add_argument("--optimizer", default="sgd", help="sgd, momentum, nesterov, rmsprop, adagrad, adam, adamw")
    sub.add_argument("--learning-rate", type=float, help="default: 0.5 for sgd, else the optimizer's own")
    sub.add_argument("--epochs", type=int, default=80, help="default: 80")
    sub.add_argument("--batch-size", type=int, default=20, help="default: 20")
    sub.add_argument("--seed", type=int, default=0, help="default: 0")
    sub.add_argument("--out", metavar="FILE", help="save the network")
    sub.add_argument("--checkpoint", metavar="FILE", help="save the run after each epoch, and when it is interrupted")
    sub.add_argument("--checkpoint-steps", metavar="N", type=int, help="save it after every N steps, too")
    sub.add_argument(
        "--resume",
        metavar="FILE",
        help="go on from where --checkpoint saved the run, with the options of that run; and save it there again",
    )
    sub.add_argument("--quiet", action="store_true", help="no progress")


def sizes(text: str) -> list[int]:
    """Read ``"784,256,10"``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of sizes like 784,256,10") from None


def read_data(name: str) -> tuple[Dataset, Dataset]:
    """Return the train and test sets of that name, or of a folder."""
    from bpxp import data

    readers = {"digits": data.digits, "mnist": data.mnist, "fashion-mnist": data.fashion_mnist}
    if name in readers and not Path(name).is_dir():
        return readers[name]()
    if not Path(name).is_dir():
        raise InvalidValueError("data", f"{name!r} is neither {', '.join(DATA_SETS)} nor a folder", code="E003")
    return data.folder_dataset(name)


def network(options: argparse.Namespace, layers: list[int]) -> bpxp.Network:
    """Return the network that the options of ``bpxp train`` describe."""
    names = ("hidden", "init", "dtype", "backend", "seed")
    return bpxp.Network(layers, **{name: getattr(options, name) for name in names})


def train(options: argparse.Namespace) -> int:
    """Train, evaluate on the test set, and save."""
    training, test = read_data(options.data)
    pixels = 1
    for n in training.x.shape[1:]:
        pixels *= n
    layers = options.layers or [pixels, 30 if pixels > 64 else 64, int(training.y.max()) + 1]
    net = network(options, layers)
    rate = options.learning_rate
    if rate is None and options.optimizer == "sgd":
        rate = 0.5
    optimizer = bpxp.optim.get_optimizer(options.optimizer, rate)
    if options.out:
        check_writable(Path(options.out), 8 * net.size)  # what would fail after the training fails before it
    if not options.quiet:
        print(net)
    path = options.checkpoint or options.resume
    callbacks = [bpxp.callbacks.Checkpoint(path, steps=options.checkpoint_steps)] if path else []
    trainer = bpxp.Trainer(net, optimizer, callbacks=callbacks, progress=not options.quiet)
    trainer.how_to_resume = lambda file: resuming(options.line, file)
    trainer.fit(
        training,
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation=test,
        resume=options.resume or False,
    )
    found = net.evaluate(test)
    if options.out:
        net.save(options.out)
        print(f"saved: {options.out}")
    print(f"test accuracy: {found['accuracy']:.4f}")
    return 0


def resuming(line: Sequence[str], file: str) -> str:
    """Return the command line that goes on from a file."""
    kept: list[str] = []
    for word in line:
        if kept and kept[-1] == "--resume":
            kept.pop()
        elif not word.startswith("--resume="):
            kept.append(word)
    return shlex.join(["bpxp", *kept, "--resume", file])


def evaluate(options: argparse.Namespace) -> int:
    """Print loss and accuracy of a saved network on a test set."""
    net = bpxp.Network.load(options.model, backend=options.backend)
    _, test = read_data(options.data)
    per_class = [bpxp.metrics.PrecisionRecallF1(per_class=True)] if options.per_class else []
    found = net.evaluate(test, metrics=["accuracy", *per_class])
    if options.per_class:
        names = test.classes or [str(k) for k in range(net.output_shape[-1])]
        width = max(len(name) for name in ("class", *names))
        print(f"{'class':<{width}}  precision  recall      f1")
        for k, name in enumerate(names):
            precision, recall, f1 = (found["class"][f"{what}_{k}"] for what in ("precision", "recall", "f1"))
            print(f"{name:<{width}}  {precision:9.4f}  {recall:6.4f}  {f1:6.4f}")
    print(f"test loss: {found['loss']:.4f}")
    print(f"test accuracy: {found['accuracy']:.4f}")
    return 0


def predict(options: argparse.Namespace) -> int:
    """Print the class of each picture, and its probability."""
    import numpy as np

    from bpxp.data.images import load_digit

    net = bpxp.Network.load(options.model, backend=options.backend)
    x = np.stack([load_digit(path, net.input_shape, prepare=not options.as_is) for path in options.images])
    for path, row in zip(options.images, net.backend.to_numpy(net.predict_proba(x)), strict=True):
        print(f"{path}: {int(row.argmax())} ({row.max():.3f})")
    return 0


def backends(options: argparse.Namespace) -> int:
    """Print a line for each array library."""
    for name, info in bpxp.available_backends().items():
        version = f" {info.version}" if info.version else ""
        print(
            f"{name:<7}{'available' if info.available else 'not available':<14}{version}"
            + (f"  {info.reason}" if info.reason else "")
        )
    print(f"default: {bpxp.get_backend().name}")
    return 0


def replay(options: argparse.Namespace) -> int:
    """Print every quantity of a step that diverged, as it was and as it is in float64."""
    print(bpxp.replay(options.file))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check gradients and equations: of a saved network, or of everything."""
    from bpxp.backends.dtypes import has_float64
    from bpxp.verify import check_equations
    from bpxp.verify.equations.catalogue import check_all
    from bpxp.verify.survey import check_model, survey

    gradients = "gradients, against the loss:"
    equations = "equations, as slow loops against the code:"
    if options.model:
        net = bpxp.Network.load(options.model, backend=options.backend)
        print(f"{gradients}\n{check_model(net)}\n\n{equations}\n{check_equations(net)}")
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
    rate = 0.5 if options.learning_rate is None and options.optimizer == "sgd" else options.learning_rate
    optimizer = bpxp.optim.get_optimizer(options.optimizer, rate)
    data = None if options.data is None else read_data(options.data)[0]
    return net, data, {"batch_size": options.batch_size, "optimizer": optimizer}


def certify(options: argparse.Namespace) -> int:
    """Print the parity certificate; 1 if a deviation is beyond its bound, or nothing ran."""
    net, data, how = trial_of(options)
    backends = options.backends and options.backends.split(",")
    dtypes = options.dtypes.split(",")
    found = bpxp.verify.certify(net, backends, data, steps=options.steps, dtypes=dtypes, **how)
    print(found)
    write_json(options.out, found.to_json())
    return 0 if found.ok else 1


def bisect(options: argparse.Namespace) -> int:
    """Print where two backends part; 1 if they do."""
    net, data, how = trial_of(options)
    ends = options.first, options.second
    found = bpxp.verify.bisect(net, *ends, data, steps=options.steps, dtype=options.dtype, **how)
    print(found)
    write_json(options.out, found.to_json())
    return 0 if found.difference is None else 1


def xray(options: argparse.Namespace) -> int:
    """Print how exact each delta and gradient is."""
    net, data, how = trial_of(options)
    found = bpxp.verify.xray(net, data, backend=options.backend, matmul=options.matmul, steps=options.at, **how)
    print(found)
    write_json(options.out, found.to_json())
    return 0


def write_json(path: str | None, text: str) -> None:
    """Write a report to a file, if there is one."""
    if path:
        Path(path).write_text(text + "\n", encoding="utf-8")
        print(f"saved: {path}")


def print_worst(title: str, reports: Iterable[tuple[str, GradientReport | DerivationReport]]) -> None:
    """Print a line for each report, as soon as it is there, and the worst of all."""
    worst = 0.0
    print(title)
    for name, report in reports:
        worst = max(worst, report.worst)
        print(f"{name:<45} {report.worst:.1e}", flush=True)
    print(f"largest relative error: {worst:.1e}")
