"""Columns of a data frame in another order than in training are found by their names, or refused."""

from __future__ import annotations

import numpy as np
import pandas
import polars
import pytest

import bpxp
from bpxp.data import Dataset
from bpxp.data.validation.columns import LONGEST, column_names
from bpxp.errors import InvalidValueError

X, Y = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32), np.arange(30) % 2
FRAMES = {
    "pandas": lambda names: pandas.DataFrame(X, columns=list("abc"))[list(names)],
    "polars": lambda names: polars.DataFrame(X, schema=list("abc")).select(list(names)),
    "Dataset": lambda names: Dataset(pandas.DataFrame(X, columns=list("abc"))[list(names)], Y),
}


def trained(x, how="fit"):
    net = bpxp.Network([3, 2], backend="numpy", seed=0)
    if how == "fit":
        bpxp.Trainer(net, progress=False).fit(x if isinstance(x, Dataset) else (x, Y), epochs=1)
    else:
        net.gradient_descent((x, Y), learning_rate=0.1)
    return net


@pytest.mark.parametrize("kind", FRAMES)
def test_another_order_is_found_by_name(kind, tmp_path):
    frame = FRAMES[kind]
    net, right = trained(frame("abc")), trained(X)
    np.testing.assert_array_equal(net.logits(frame("cab")), right.logits(X))
    np.testing.assert_array_equal(net.logits(X), right.logits(X))  # an array has no names
    if kind != "Dataset":
        assert net.evaluate(frame("bca"), Y) == right.evaluate(X, Y)
        net.save(tmp_path / "net.bpxp")
        np.testing.assert_array_equal(bpxp.Network.load(tmp_path / "net.bpxp").logits(frame("cba")), right.logits(X))
        assert trained(frame("bac"), "step").spec.inputs.features == ("b", "a", "c")


def test_other_columns_are_refused():
    frame = FRAMES["pandas"]("abc")
    net = trained(frame)
    for other, text in (
        (frame.rename(columns={"c": "d"}), "got 'd', expected 'c'"),
        (frame.assign(d=1.0), r"got 'd', expected 'a', 'b', 'c'. Fix: x\[list\(net.spec.inputs.features\)\]"),
        (frame.set_axis(list("aab"), axis=1), "some of them twice, expected 'c'"),
    ):
        with pytest.raises(InvalidValueError, match=f"not the columns.*{text}"):
            net.predict(other)
    net.predict(frame.assign(d=1.0)[list(net.spec.inputs.features)])  # the fix
    with pytest.raises(InvalidValueError, match="x has 2 features"):
        net.predict(frame[["a", "b"]])


def test_names_that_say_nothing_are_not_kept():
    assert column_names(pandas.DataFrame(X)) == column_names(polars.DataFrame(X)) == ()
    assert column_names(pandas.DataFrame(X, columns=[3, 1, 2])) == (3, 1, 2)
    assert column_names(pandas.DataFrame(X, columns=[("a", 1), ("a", 2), ("b", 1)])) == ()
    assert column_names(pandas.DataFrame(X, columns=["a" * LONGEST, "b", "c"])) == ()
    assert column_names(X) == column_names(X.tolist()) == ()
    assert Dataset(X, Y, features=list("abc")).features == ("a", "b", "c")
    with pytest.raises(InvalidValueError, match="not one name per column"):
        Dataset(X, Y, features=["a"])
