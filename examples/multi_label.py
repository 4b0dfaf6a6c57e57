"""Multi-label classification: which two digits are in a picture?

It shows ``loss="binary_cross_entropy"``: ten independent sigmoids, one per digit, instead of one softmax. A picture
is 8 by 16 pixels, two of the bundled handwritten digits side by side; test pictures contain test digits only. "exact
match" means that all ten labels of a picture are right.

Run:  python examples/multi_label.py         (a few seconds, no download)

Printed: (2 CPU cores, NumPy 2.4.6)
    epoch  1/10  loss 2.3015  0.3 s
    …
    epoch 10/10  loss 0.1861  0.3 s
    test: F1 micro 0.9513, F1 macro 0.9514, exact match 0.8420
    picture 0: {2, 6}, predicted {2, 6}   (most probable 6: 1.000, 2: 0.933, 1: 0.007)
    picture 1: {3, 6}, predicted {3, 6}   (most probable 6: 1.000, 3: 0.984, 9: 0.016)
    picture 2: {8, 9}, predicted {8, 9}   (most probable 8: 0.999, 9: 0.999, 3: 0.169)
    picture 3: {1, 9}, predicted {9}   (most probable 9: 0.929, 8: 0.225, 1: 0.109)
    picture 4: {2, 9}, predicted {2, 9}   (most probable 9: 0.998, 2: 0.986, 3: 0.048)
"""

import numpy as np

import bpxp


def pairs(digits: bpxp.data.Dataset, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return n pictures of two digits each, (n, 128) uint8, and which digits are in them, (n, 10)."""
    left, right = np.random.default_rng(seed).integers(len(digits), size=(2, n))
    pictures = np.concatenate([digits.x[left], digits.x[right]], axis=2)
    labels = np.zeros((n, 10), dtype=np.float32)
    for side in (left, right):
        labels[np.arange(n), digits.y[side]] = 1.0  # the same digit twice is one label
    return pictures.reshape(n, -1), labels


def names(labels: np.ndarray) -> str:
    return "{" + ", ".join(str(k) for k in np.flatnonzero(labels)) + "}"


train, test = bpxp.data.digits()
x, y = pairs(train, 20_000, seed=1)
x_test, y_test = pairs(test, 1_000, seed=2)

net = bpxp.Network([128, 256, 10], hidden="relu", init="he", loss="binary_cross_entropy", pixels=True, seed=0)
trainer = bpxp.Trainer(net, bpxp.optim.Adam(0.002))
trainer.fit((x, y), epochs=10, batch_size=100)

found = net.evaluate(x_test, y_test, metrics=["f1", "exact_match"])
print("test: F1 micro {micro:.4f}, F1 macro {macro:.4f}".format(**found["f1"]), end=", ")
print(f"exact match {found['exact_match']:.4f}")

predicted = net.backend.to_numpy(net.predict(x_test))
probability = net.backend.to_numpy(net.predict_proba(x_test))
for i in range(5):
    sure = ", ".join(f"{k}: {probability[i, k]:.3f}" for k in np.argsort(-probability[i])[:3])
    print(f"picture {i}: {names(y_test[i])}, predicted {names(predicted[i])}   (most probable {sure})")
