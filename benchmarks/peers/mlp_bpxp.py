"""The workload in bpxp, as a user writes it: one `Trainer.fit`, whose first epoch warms up."""

from __future__ import annotations

import json
import statistics

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
    net = bpxp.Network([workload.INPUTS, workload.HIDDEN, workload.CLASSES], backend=backend, seed=0)
    trainer = bpxp.Trainer(net, bpxp.optim.SGD(workload.LEARNING_RATE), progress=False)
    history = trainer.fit((x, y), epochs=1 + arguments.epochs, batch_size=workload.BATCH)
    # An epoch ends when its loss is a number on the host: everything before it is done.
    values = [1e3 * seconds / workload.STEPS for seconds in history["seconds"][1:]]
    print(json.dumps({"value": statistics.median(values), "epochs": values, "loss": history["loss"][-1]}))


if __name__ == "__main__":
    main()
