"""Pictures of digits: white on black, centred by mass, in the network's input shape."""

from __future__ import annotations

import contextlib
import io
import random
import tracemalloc
import warnings

import numpy as np
import pytest
from fuzz.mutate import changed

from bpxp.data import images
from bpxp.data.images import load_digit, picture_size
from bpxp.errors import DatasetFormatError, InvalidValueError

pillow = pytest.importorskip("PIL.Image")


def centred(picture, height, width):
    grey = pillow.fromarray(picture.astype(np.uint8))
    return np.asarray(images.centred(grey, height, width), dtype=np.float64)


def stroke(height, width, top, left, tall, wide, ink=255.0, paper=0.0):
    picture = np.full((height, width), paper)
    picture[top : top + tall, left : left + wide] = ink
    return picture


@pytest.mark.parametrize(("paper", "ink"), [(0.0, 255.0), (255.0, 0.0), (200.0, 60.0), (30.0, 120.0)])
def test_any_ink_on_any_paper(paper, ink):
    found = centred(stroke(100, 80, 10, 5, 60, 12, ink, paper), 28, 28)
    assert found.max() == pytest.approx(255.0)
    assert found[0].max() == found[:, 0].max() == 0.0
    # 60 by 12 becomes 20 by 4, in the middle.
    rows, columns = np.nonzero(found > 127)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 23, 12, 15)


def test_mass_is_centred():
    picture = stroke(60, 60, 0, 0, 60, 60)
    picture[:, 15:] = 0
    picture[50:, :] = 255  # an L
    found = centred(picture, 28, 28)
    rows, columns = np.indices(found.shape)
    assert (rows * found).sum() / found.sum() == pytest.approx(13.5, abs=0.6)
    assert (columns * found).sum() / found.sum() == pytest.approx(13.5, abs=0.6)


def test_small_pictures_are_filled_and_empty_ones_stay_empty():
    found = centred(stroke(80, 80, 20, 30, 40, 20), 8, 8)
    assert (np.nonzero(found > 127)[0].min(), np.nonzero(found > 127)[0].max()) == (0, 7)
    assert not centred(np.full((9, 9), 77.0), 8, 8).any()
    dots = np.zeros((2000, 2000))
    dots[0, 0] = dots[-1, -1] = 255.0
    assert not centred(dots, 28, 28).any()


def test_files_and_shapes(tmp_path):
    path = tmp_path / "x.png"
    pillow.fromarray(stroke(28, 28, 4, 12, 20, 4).astype(np.uint8)).convert("RGB").save(path)
    assert np.array_equal(load_digit(path, (784,)).reshape(28, 28, 1), load_digit(path, (28, 28, 1)))
    assert load_digit(path, (28, 28, 1)).dtype == np.uint8
    as_is = load_digit(path, (28, 28, 1), prepare=False)[:, :, 0]
    assert np.array_equal(as_is, stroke(28, 28, 4, 12, 20, 4).astype(np.uint8))


def test_networks_that_take_no_pictures():
    assert picture_size((64,)) == (8, 8)
    for shape in ((10,), (28, 28, 3), (2, 2, 2, 2)):
        with pytest.raises(InvalidValueError, match="does not take grey pictures"):
            picture_size(shape)


@pytest.mark.parametrize("kind", ["npy", "png", "jpeg", "gif", "bmp", "tiff", "ppm"])
def test_damaged_files_are_refused_by_name(tmp_path, kind):
    stream, path, rng = io.BytesIO(), tmp_path / f"x.{kind}", random.Random(0)
    if kind == "npy":
        np.save(stream, np.ones((4, 4)))
    else:
        pillow.fromarray(stroke(9, 9, 1, 2, 3, 4).astype(np.uint8)).save(stream, kind)
    for _ in range(150):
        path.write_bytes(changed(rng, stream.getvalue(), [stream.getvalue()]))
        with contextlib.suppress(DatasetFormatError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what it passes over
            load_digit(path, (16,))


def test_arrays_that_are_none(tmp_path):
    path = tmp_path / "x.npy"
    bomb = io.BytesIO()
    np.lib.format.write_array_header_1_0(bomb, {"descr": "<f8", "fortran_order": False, "shape": (2**20, 2**20)})
    objects = io.BytesIO()
    np.save(objects, np.array([{}], object), allow_pickle=True)
    zipped = io.BytesIO()
    np.savez(zipped, np.ones(16))
    for content in (bomb, objects, zipped, io.BytesIO(b"")):
        path.write_bytes(content.getvalue())
        tracemalloc.start()
        try:
            with pytest.raises(DatasetFormatError, match="not an array of numbers"):
                load_digit(path, (16,))
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()
    with pytest.raises(FileNotFoundError):
        load_digit(tmp_path / "nothing.npy", (16,))
    with pytest.raises(FileNotFoundError):
        load_digit(tmp_path / "nothing.png", (16,))
