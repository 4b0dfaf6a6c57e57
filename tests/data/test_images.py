"""Pictures of digits: white on black, centred by mass, in the network's input shape."""

from __future__ import annotations

import contextlib
import io
import random
import subprocess
import sys
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


# ---------------------------------------------------------------- the same digit, saved in other ways

INK = stroke(140, 100, 20, 30, 100, 20) + stroke(140, 100, 20, 30, 20, 50)  # an upright angle: no symmetry
INK = np.minimum(INK, 255.0).astype(np.uint8)


def clear(ink, grey, paper=0):
    """The digit as transparency: `grey` where it is inked, and `paper`, which nobody sees, elsewhere."""
    inked = ink[..., None] > 0
    return np.where(inked, np.uint8([grey, grey, grey, 255]), np.uint8([paper, paper, paper, 0]))


def turned(ink, orientation, kind):
    """A picture as a camera saves it that was held so: upright after what EXIF's tag says."""
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    turns |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}  # the inverse of what makes it upright
    exif = pillow.Exif()
    exif[0x0112] = orientation
    return pillow.fromarray(255 - ink).transpose(pillow.Transpose[turns[orientation]]), {"exif": exif, "format": kind}


def palette(transparent):
    picture = pillow.fromarray(np.where(INK > 0, 1, 0).astype(np.uint8), "L").convert("P")
    picture.putpalette([255, 255, 255, 0, 0, 0] if not transparent else [0, 0, 0, 0, 0, 0])
    return picture, {"format": "PNG", **({"transparency": 0} if transparent else {})}


def of(array, kind="PNG", **options):
    return lambda: (pillow.fromarray(array), {"format": kind, **options})


SAVED = {
    "black on white": of(255 - INK),
    "white on black": of(INK),
    "colours": of(np.stack([255 - INK] * 3, axis=-1)),
    "black ink, transparent": of(clear(INK, 0)),
    "black ink, transparent white": of(clear(INK, 0, 255)),
    "white ink, transparent": of(clear(INK, 255)),
    "white ink, transparent white": of(clear(INK, 255, 255)),
    "grey and transparent": of(clear(INK, 0)[..., 2:]),
    "paper with transparent corners": lambda: (corners(), {"format": "PNG"}),
    "palette": lambda: palette(False),
    "palette with a transparent colour": lambda: palette(True),
    "one bit": lambda: (pillow.fromarray(255 - INK).convert("1"), {"format": "PNG"}),
    "16 bits": of((255 - INK).astype(np.uint16) * 257),
    "16 bits of a TIFF": of((255 - INK).astype(np.uint16) * 257, "TIFF"),
    "16 bits as 32": of((255 - INK).astype(np.int32) * 257, "TIFF"),
    "8 bits as 32": of((255 - INK).astype(np.int32), "TIFF"),
    "floats to 1": of((1 - INK / 255).astype(np.float32), "TIFF"),
    "floats to 255": of((255 - INK).astype(np.float32), "TIFF"),
    "floats to 65535": of((255 - INK).astype(np.float32) * 257, "TIFF"),
    "CMYK": lambda: (pillow.fromarray(255 - INK).convert("CMYK"), {"format": "TIFF"}),
    **{f"orientation {n}": (lambda n=n: turned(INK, n, "PNG")) for n in range(2, 9)},
    **{f"orientation {n} of a TIFF": (lambda n=n: turned(INK, n, "TIFF")) for n in (3, 6)},
}


def corners():
    rgba = np.stack([255 - INK] * 3 + [np.full_like(INK, 255)], axis=-1)
    rgba[:10, :10] = rgba[-10:, -10:] = 0
    return pillow.fromarray(rgba)


@pytest.mark.parametrize("way", SAVED)
def test_a_digit_is_the_same_however_it_was_saved(way, tmp_path):
    picture, options = SAVED[way]()
    picture.save(tmp_path / "x", **options)
    pillow.fromarray(INK).save(tmp_path / "plain", format="PNG")
    right = load_digit(tmp_path / "plain", (28, 28, 1)).astype(int)
    assert right.sum() > 10_000
    assert np.abs(load_digit(tmp_path / "x", (28, 28, 1)) - right).max() <= 2


@pytest.mark.parametrize(
    ("picture", "text"),
    [
        (np.full((50, 50), 255, np.uint8), "an empty page.*greys from 255 to 255"),
        (np.zeros((50, 50), np.uint8), "an empty page"),
        (np.full((50, 50), 200, np.uint8) + (np.arange(2500).reshape(50, 50) % 7).astype(np.uint8), "an empty page"),
        (np.zeros((50, 50, 4), np.uint8), "an empty page"),
        (np.full((50, 50, 4), np.uint8([255, 255, 255, 0])), "an empty page"),
        (
            np.linspace(-1, 1, 2500, dtype=np.float32).reshape(50, 50),
            r"no shades of grey: got -1 … 1, expected 0 … 1 or",
        ),
        (np.linspace(0, 1e6, 2500, dtype=np.float32).reshape(50, 50), "no shades of grey: got 0 … 1e[+]06"),
        (np.full((50, 50), np.nan, np.float32), "no shades of grey: got NaN or inf"),
        (np.arange(2500, dtype=np.int32).reshape(50, 50) - 7, "no shades of grey: got -7"),
    ],
    ids=["white", "black", "noise", "clear", "clear white", "negative", "no scale", "NaN", "negative integers"],
)
def test_pictures_without_a_digit_are_refused(picture, text, tmp_path):
    pillow.fromarray(picture).save(tmp_path / "x.tiff")
    with pytest.raises(DatasetFormatError, match=rf"{text}.*BPX-E075"):
        load_digit(tmp_path / "x.tiff", (28, 28, 1))


def test_pillows_limit_of_pixels_is_the_limit(tmp_path, monkeypatch):
    pillow.fromarray(INK).save(tmp_path / "x.png")
    for limit in (INK.size - 1, INK.size // 3):  # Pillow warns of the one, and refuses the other
        monkeypatch.setattr(pillow, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DatasetFormatError, match="too many pixels.*BPX-E075"):
            load_digit(tmp_path / "x.png", (28, 28, 1))
    monkeypatch.setattr(pillow, "MAX_IMAGE_PIXELS", INK.size)
    load_digit(tmp_path / "x.png", (28, 28, 1))


@pytest.mark.parametrize("mode", ["1", "RGB", "RGBA", "P", "I;16", "F"])
def test_the_memory_for_a_picture_is_bounded(mode, tmp_path):
    # In a process of its own: Pillow's memory is not Python's.
    n = 3000
    ink = np.zeros((n, n), np.uint8)
    ink[9:-9, 9 : n // 2] = 255
    made = {"I;16": lambda: ink.astype(np.uint16) * 257, "F": lambda: ink.astype(np.float32)}
    made["RGBA"] = lambda: np.stack([ink * 0, ink, ink, ink], axis=-1)
    picture = pillow.fromarray(made[mode]()) if mode in made else pillow.fromarray(ink).convert(mode)
    picture.save(tmp_path / "x", format="TIFF" if mode == "F" else "PNG")
    program = f"""
import resource
from bpxp.data.images import load_digit
from PIL import Image
load_digit({str(tmp_path / "small")!r}, (28, 28, 1))  # what is imported
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_digit({str(tmp_path / "x")!r}, (28, 28, 1))
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / {n * n})
"""
    picture.resize((300, 300), pillow.Resampling.NEAREST).save(
        tmp_path / "small", format="TIFF" if mode == "F" else "PNG"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(printed) <= 8.0


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"<!DOCTYPE html><html>404</html>", r"a web page \(HTML\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer.*Fix: git lfs pull"),
        (b"PK\x03\x04" + bytes(60), "a zip archive.*Fix: unzip it"),
    ],
)
def test_what_is_no_picture_is_named(content, text, tmp_path):
    for name in ("x.png", "x.npy"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DatasetFormatError, match=f"not a picture, but {text}"):
            load_digit(tmp_path / name, (28, 28, 1))


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
            with pytest.raises(DatasetFormatError, match="not an array of numbers|a zip archive|an empty"):
                load_digit(path, (16,))
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()
    with pytest.raises(FileNotFoundError):
        load_digit(tmp_path / "nothing.npy", (16,))
    with pytest.raises(FileNotFoundError):
        load_digit(tmp_path / "nothing.png", (16,))
