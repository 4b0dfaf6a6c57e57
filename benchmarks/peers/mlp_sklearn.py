"""The workload in scikit-learn: `MLPClassifier` with plain SGD; the time of k + 1 epochs less that of one."""

from __future__ import annotations

import json
import time
import warnings

from sklearn.neural_network import MLPClassifier

from benchmarks.peers import workload


def main() -> None:
    epochs = workload.options().parse_args().epochs
    x, y = workload.floats()

    def fit(count: int) -> tuple[float, float]:
        net = MLPClassifier(
            hidden_layer_sizes=(workload.HIDDEN,),
            activation="logistic",
            solver="sgd",
            momentum=0.0,
            nesterovs_momentum=False,
            alpha=0.0,
            batch_size=workload.BATCH,
            learning_rate_init=workload.LEARNING_RATE,
            shuffle=True,
            random_state=0,
            max_iter=count,
            tol=0.0,
            n_iter_no_change=count + 1,
        )
        begun = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has not converged: it was not asked to
            net.fit(x, y)
        return time.perf_counter() - begun, net.loss_

    once, _ = fit(1)
    more, loss = fit(1 + epochs)
    print(json.dumps({"value": 1e3 * (more - once) / (epochs * workload.STEPS), "loss": loss}))


if __name__ == "__main__":
    main()
