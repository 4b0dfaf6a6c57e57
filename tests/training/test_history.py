"""A history is read as users of other libraries read theirs: by row, by column, as a dict, as a data frame."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import bpxp

ROWS = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.4}, {"epoch": 3, "loss": 0.3}]


@pytest.fixture
def history():
    return bpxp.History(ROWS)


def test_rows(history):
    assert history[0] == history[np.int64(0)] == ROWS[0]
    assert history[-1] == ROWS[2]
    assert list(history) == history.rows == ROWS
    assert isinstance(history[1:], bpxp.History)
    assert history[1:].rows == ROWS[1:]
    with pytest.raises(IndexError):
        history[3]


def test_columns(history):
    columns = {"epoch": [1, 2, 3], "loss": [0.5, 0.4, 0.3]}
    assert "loss" in history
    assert "val_loss" not in history
    assert ROWS[0] in history
    assert dict(history) == {**history} == history.history == dict(history.items()) == columns
    assert list(history.keys()) == history.columns == list(columns)
    assert list(history.values()) == list(columns.values())
    with pytest.raises(KeyError, match="the columns are epoch, loss"):
        history["accuracy"]


def test_a_column_that_begins_later(history):
    history.append({"epoch": 4, "loss": 0.2, "validation_loss": 0.6})
    assert history.columns == ["epoch", "loss", "validation_loss"]
    assert history["validation_loss"][3] == 0.6
    assert np.isnan(history["validation_loss"][:3]).all()
    assert "0.6" in repr(history)


def test_data_frames(history):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    for frame in (pandas.DataFrame(history), pandas.DataFrame(dict(history)), polars.DataFrame(dict(history))):
        assert list(frame.columns) == ["epoch", "loss"]
        assert list(frame["loss"]) == [0.5, 0.4, 0.3]


def test_copies(history):
    for same in (copy.deepcopy(history), pickle.loads(pickle.dumps(history)), bpxp.History(history)):
        assert same.rows == ROWS


def test_an_empty_one():
    assert (bpxp.History().columns, dict(bpxp.History()), len(bpxp.History())) == ([], {}, 0)
