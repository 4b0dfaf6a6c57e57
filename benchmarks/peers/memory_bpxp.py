"""How much memory a fit takes: the peak during `Trainer.fit`, beyond what the process held before the data.

The bound is data + parameters × (2 + optimizer slots) + the activations of one batch; Linux only, since nothing else
can set the peak back.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import bpxp


def status(name: str) -> float:
    """Return a line of /proc/self/status in MB: VmRSS now, VmHWM at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024.0


def set_peak_back() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def data(samples: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x in float32 and y, made in place: no temporary of the size of x."""
    rng = np.random.default_rng(0)
    x = np.empty((samples, inputs), np.float32)
    rng.random(out=x, dtype=np.float32)
    return x, np.arange(samples, dtype=np.int32) % 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--layers", default="784,256,10")
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--optimizer", default="sgd")
    arguments = parser.parse_args()
    sizes = [int(n) for n in arguments.layers.split(",")]
    slots = {"sgd": 0, "momentum": 1, "adam": 2}[arguments.optimizer]
    batch = 64

    def fit(layers: list[int], samples: int) -> tuple[bpxp.Network, float, float]:
        before = status("VmRSS")
        set_peak_back()
        net = bpxp.Network(layers, backend=arguments.backend, seed=0)
        trainer = bpxp.Trainer(net, arguments.optimizer, progress=False)
        drawing = status("VmHWM") - before  # the parameters are drawn on the host in float64, before the fit
        x, y = data(samples, layers[0])
        set_peak_back()
        trainer.fit((x, y), epochs=2, batch_size=batch)
        return net, status("VmHWM") - before, drawing

    fit([16, 8, 10], 640)  # libraries loaded, threads started
    net, peak, drawing = fit(sizes, arguments.samples)

    megabytes = 4.0 / 2**20
    parts = {
        "data": arguments.samples * (sizes[0] + 1) * megabytes,
        "parameters": net.size * (2 + slots) * megabytes,
        "activations": batch * (sizes[0] + 2 * sum(sizes[1:])) * megabytes,
    }
    bound = sum(parts.values())
    print(json.dumps({"value": peak / bound, "peak MB": peak, "bound MB": bound, **parts, "drawing": drawing}))


if __name__ == "__main__":
    main()
