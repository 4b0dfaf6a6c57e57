"""The workload in bpxp, as a user writes it: `Trainer.fit`, one epoch at a time."""

from __future__ import annotations

import bpxp
from benchmarks.peers import workload


def main() -> None:
    parser = workload.options()
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--pixels", action="store_true", help="pictures as uint8, as in bpxp's own data sets")
    arguments = parser.parse_args()
    backend = bpxp.get_backend(arguments.backend)
    x, y = workload.pictures() if arguments.pixels else workload.floats()
    x, y = backend.asarray(x), backend.asarray(y.astype("int32"))
    layers = [workload.INPUTS, workload.HIDDEN, workload.CLASSES]
    net = bpxp.Network(layers, backend=backend, seed=0)
    trainer = bpxp.Trainer(net, bpxp.optim.SGD(workload.LEARNING_RATE), progress=False)

    def epoch() -> float:
        history = trainer.fit((x, y), epochs=1, batch_size=workload.BATCH)
        return history["loss"][-1]  # a number on the host: everything before it is done

    workload.report(epoch, arguments.epochs)


if __name__ == "__main__":
    main()
