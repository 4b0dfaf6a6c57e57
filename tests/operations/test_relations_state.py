"""Relations of a network's state and of its inputs: files, chunks, precision, and how numbers lie in memory."""

from __future__ import annotations

import os
import tempfile
from unittest import mock

import numpy as np
from hypothesis import strategies as st
from operations.relation import COUNTED, EXAMPLES, SEEDS, close, equal, relation
from operations.table import ACTIVATIONS, LOSSES

import bpxp
from bpxp import nn

NORMALISED = ((nn.BatchNorm(),), (nn.LayerNorm(),))
OTHERS = ((), (nn.Dropout(0.3),))


@st.composite
def networks(draw, dtype="float32", middles=NORMALISED + OTHERS):
    """Draw a network and inputs for it."""
    loss, hidden = draw(st.sampled_from(LOSSES)), draw(st.sampled_from(ACTIVATIONS))
    n_out = 3 if isinstance(getattr(loss.thing, "pos_weight", 0.0), tuple) else draw(st.integers(2, 4))
    n_in, batch, seed = draw(st.integers(1, 5)), draw(st.integers(1, 9)), draw(SEEDS)
    middle = draw(st.sampled_from(middles))
    layers = [n_in, draw(st.integers(1, 5)), *middle, n_out]
    net = bpxp.Network(layers, hidden=hidden.thing, loss=loss.thing, backend="numpy", dtype=dtype, seed=seed)
    return net, np.random.default_rng(seed).standard_normal((batch, n_in)).astype(dtype)


@relation(given=networks())
def test_a_network_from_a_file_says_the_same_bits(given):
    net, x = given
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        net.save(f"{folder}/net.bpxp")
        other = bpxp.Network.load(f"{folder}/net.bpxp", backend="numpy")
    equal(other.params, net.params)
    equal(other.stats, net.stats)
    for ask in ("logits", "predict", "predict_proba"):
        assert getattr(other, ask)(x).tobytes() == getattr(net, ask)(x).tobytes()


@relation(given=networks("float64"), size=st.integers(1, 4))
def test_predictions_do_not_depend_on_the_chunk(given, size):
    net, x = given
    whole = net.logits(x)
    with mock.patch("bpxp.network.inference_batch.CHUNK", size):
        close(bpxp.Network.to(net, "numpy").logits(x), whole, 1e-13)


# Of what is nearly equal a normalisation may show little but the rounding.
@relation(given=networks(middles=OTHERS), seed=SEEDS)
def test_float32_is_float64_to_its_rounding(given, seed):
    net, x = given
    rng = np.random.default_rng(seed)
    params = bpxp.core.tree.tree_map(lambda a: rng.standard_normal(a.shape).astype("float32"), net.params)
    net.params = params
    wide = bpxp.Network(
        [*net.input_shape, *net.layers], loss=net.loss, backend="numpy", dtype="float64", seed=0
    )  # the same layers: they know their activations
    wide.params = bpxp.core.tree.tree_map(lambda a: a.astype("float64"), params)
    close(net.logits(x), wide.logits(x), 2e-5)


def representations(x):
    """Return the same numbers as they may lie in memory, by name."""
    wide = np.zeros((2 * x.shape[0], 3 * x.shape[1]), x.dtype)
    wide[::2, ::3] = x
    readonly = x.copy()
    readonly.flags.writeable = False
    return {
        "columns first": np.asfortranarray(x),
        "strided": wide[::2, ::3],
        "backwards": x[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": readonly,
        "big-endian": x.astype(x.dtype.newbyteorder(">")),
        "little-endian": x.astype(x.dtype.newbyteorder("<")),
        "a list of lists": x.tolist(),
        "float64": x.astype(float),
    }


@relation(given=networks())
def test_how_numbers_lie_in_memory_does_not_matter(given):
    net, x = given
    expected = net.logits(x)
    for name, a in representations(x).items():
        before = np.array(a)
        close(net.logits(a), expected, 1e-6)
        np.testing.assert_array_equal(before, np.array(a), err_msg=name)


@relation(given=networks("float64"), n=st.integers(1, 20))
def test_bytes_are_pixels(given, n):
    net, _ = given
    net.pixels = True
    x = np.arange(n * net.input_shape[0], dtype=np.uint8).reshape(n, -1) * 7
    close(net.logits(x), net.logits(x / 255.0), 1e-10)


def test_examples_are_counted(promise):
    """Of a run of all files of relations, this one the last."""
    if COUNTED:
        what = f"Relations (batches, symmetries, linearity, neutral options, images, state): {EXAMPLES:,} examples each"
        promise(what, f"{len(COUNTED)} relations, {sum(COUNTED.values()):,} examples, 0 broken")
