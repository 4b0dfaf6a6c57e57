"""How a peer is spoken to: turns of a training that goes on, or a race to an accuracy.

A peer is a class made from (work, arguments), with

- ``train(epochs, after)``: train for so many epochs, in a new random order each, and call ``after(seconds, loss)``
  after each, with the wall-clock seconds of the epoch alone, when the device has done its work, and the mean loss over
  it. Where `after` returns True the training ends.
- ``start(seed)``: new initial parameters and optimizer state; what has been compiled stays compiled.
- ``accuracy()``: on the test set, for a race.

Turns: the number of a work on a line of standard input trains that work for one turn, and a line of JSON comes back.
The first turn of a work is its warm-up (compilation, caches); the harness asks again for what counts. Nothing else is
printed to standard output, and the process ends with its input, so that
``echo 0 | python -m benchmarks.peers.NAME --work '{}'`` is how to try a peer.

Race (``--until``): warm up, begin anew, train epoch by epoch until the test accuracy is reached, and print the seconds
of training. Start-up, compilation and the evaluations are not in them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from benchmarks.peers.work import Work

After = Callable[[float, float], bool]
FOREVER = 1_000_000_000


class Peer(Protocol):
    """What `serve` asks of a peer."""

    def train(self, epochs: int, after: After) -> None: ...

    def start(self, seed: int) -> None: ...

    def accuracy(self) -> float: ...


class Loop:
    """A peer whose training loop is its own program: it has a method `epoch` that returns the mean loss."""

    def epoch(self) -> float:
        raise NotImplementedError

    def train(self, epochs: int, after: After) -> None:
        for _ in range(epochs):
            begun = time.perf_counter()
            loss = self.epoch()
            if after(time.perf_counter() - begun, loss):
                return


def options(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a peer's command line."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--work", type=parsed, action="append", required=True, help="JSON; see work.Work")
    parser.add_argument("--seconds", type=float, default=0.3, help="a turn is at least so long (default: 0.3)")
    parser.add_argument("--until", type=float, help="race to this test accuracy")
    parser.add_argument("--epochs", type=int, default=30, help="of a race, at most")
    parser.add_argument(
        "--all-epochs", action="store_true", help="race through all epochs; the accuracy is of the last"
    )
    parser.add_argument("--seed", type=int, default=0, help="of a race")
    return parser


def parsed(text: str) -> Work:
    """Return the work that a JSON object describes."""
    return Work(**json.loads(text))


def serve(
    make: Callable[[Work, argparse.Namespace], Peer], parser: argparse.ArgumentParser, *, can: tuple[str, ...] = ()
) -> None:
    """Run the program of a peer that can do more than dense layers at a constant rate: "images", "one_cycle"."""
    arguments = parser.parse_args()
    for work in arguments.work:
        if work.is_image and "images" not in can:
            raise SystemExit("it has no convolutions")
        if work.one_cycle and "one_cycle" not in can:
            raise SystemExit("its learning rate is constant here")
    out, sys.stdout = sys.stdout, sys.stderr  # what a library prints is not an answer

    def tell(found: dict[str, Any]) -> None:
        print(json.dumps(found), file=out, flush=True)

    if arguments.until is None:
        take_turns(make, arguments, iter(sys.stdin.readline, ""), tell)
    else:
        tell(race(make(arguments.work[0], arguments), arguments))
    out.flush()
    os._exit(0)  # at once: some libraries take seconds to leave


def take_turns(make: Any, arguments: argparse.Namespace, lines: Iterator[str], tell: Callable[[Any], None]) -> None:
    """Train the works that the lines name; a work goes on where it was, until another is named."""
    asked = next(lines, None)
    while asked is not None:
        index = int(asked)
        work = arguments.work[index]
        peer, seconds, lost = make(work, arguments), [], []

        def after(elapsed: float, loss: float, index=index, work=work, seconds=seconds, lost=lost) -> bool:
            nonlocal asked
            seconds.append(elapsed)
            lost.append(loss)
            if len(lost) > 1 and sum(seconds) < arguments.seconds:  # the first epoch is a turn, however short
                return False
            ms = 1e3 * statistics.median(seconds) / work.steps
            tell({"value": ms, "first loss": lost[0], "loss": loss, "epochs": len(lost), "peak MB": peak_megabytes()})
            seconds.clear()
            asked = next(lines, None)
            return asked is None or int(asked) != index

        peer.train(FOREVER, after)
        del peer, after


def race(peer: Peer, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of training until the accuracy is reached, or an error that says how far it came."""
    peer.train(1, lambda seconds, loss: True)
    peer.start(arguments.seed)
    total, accuracies = 0.0, []

    def after(seconds: float, loss: float) -> bool:
        nonlocal total
        total += seconds
        if arguments.all_epochs:
            return False
        accuracies.append(peer.accuracy())
        print(f"epoch {len(accuracies)}: loss {loss:.4f}, test accuracy {accuracies[-1]:.4f}", file=sys.stderr)
        return accuracies[-1] >= arguments.until

    peer.train(arguments.epochs, after)
    if arguments.all_epochs:
        accuracies.append(peer.accuracy())
    found = {"value": total, "accuracies": accuracies, "peak MB": peak_megabytes()}
    if accuracies[-1] < arguments.until:
        reached = f"{100 * max(accuracies):.2f} % after {arguments.epochs} epochs, {total:.3g} s"
        return {"error": f"only {reached}", "accuracies": accuracies}
    return found


def peak_megabytes() -> float:
    """Return the most memory that this process has held, data and libraries included."""
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
