"""The convolutional workload in bpxp, as a user writes it: one `Trainer.fit`, whose first epoch warms up."""

from __future__ import annotations

import bpxp
from benchmarks.peers import cnn_workload, workload
from bpxp.nn import Conv2D, Flatten, MaxPool2D


def main() -> None:
    parser = workload.options()
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--pixels", action="store_true", help="pictures as uint8, as in bpxp's own data sets")
    arguments = parser.parse_args()
    backend = bpxp.get_backend(arguments.backend)
    x, y = (backend.asarray(a) for a in cnn_workload.pictures(arguments.pixels))
    layers = []
    for filters in cnn_workload.FILTERS:
        layers += [Conv2D(filters, 3, padding="same", activation="relu"), MaxPool2D(2)]
    layers += [Flatten(), cnn_workload.CLASSES]
    net = bpxp.Network(layers, input_shape=x.shape[1:], backend=backend, seed=0)
    trainer = bpxp.Trainer(net, bpxp.optim.SGD(cnn_workload.LEARNING_RATE), progress=False)
    history = trainer.fit((x, y), epochs=1 + arguments.epochs, batch_size=cnn_workload.BATCH)
    # An epoch ends when its loss is a number on the host: everything before it is done.
    cnn_workload.tell([1e3 * s / cnn_workload.STEPS for s in history["seconds"][1:]], history["loss"][-1])


if __name__ == "__main__":
    main()
