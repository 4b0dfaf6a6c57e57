"""What a file really is: named, with what to do, by every reader of data files and networks."""

from __future__ import annotations

import gzip
import io
import tarfile

import numpy as np
import pytest

import bpxp
from bpxp.core.content import what_it_is
from bpxp.data import folder_dataset, map_idx, read_idx

tape = io.BytesIO()
with tarfile.open(fileobj=tape, mode="w") as archive:
    archive.addfile(tarfile.TarInfo("x"))
array = io.BytesIO()
np.save(array, np.ones(3))

CONTENTS = {
    "HTML": (b"<!DOCTYPE html><html>404 Not Found</html>", r"a web page \(HTML\)"),
    "HTML, blank lines": (b"\xef\xbb\xbf\r\n  <html lang=en>", r"a web page \(HTML\)"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer"),
    "zip": (b"PK\x03\x04" + bytes(60), "a zip archive"),
    "bzip2": (b"BZh91AY&SY" + bytes(60), "a file compressed by bzip2"),
    "xz": (b"\xfd7zXZ\x00" + bytes(60), "a file compressed by xz"),
    "tar": (tape.getvalue(), "a tar archive"),
    "npy": (array.getvalue(), "an array in NumPy's format"),
    "PDF": (b"%PDF-1.7", "a PDF document"),
    "JSON": (b'{"error": "not found"}', "a JSON text"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_data_file_that_is_something_else_is_named(kind, tmp_path):
    content, name = CONTENTS[kind]
    path = tmp_path / "train-images-idx3-ubyte"
    for text in (content, gzip.compress(content)):
        with pytest.raises(ValueError, match=f"not an IDX file, but {name}.*BPX-E070"):
            read_idx(text)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"not an IDX file, but {name}"):
        map_idx(path)
    for other in ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / other).write_bytes(content)
    with pytest.raises(ValueError, match=f"idx.*not an IDX file, but {name}"):
        folder_dataset(tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in CONTENTS if kind not in ("zip", "JSON")])
def test_a_network_that_is_something_else_is_named(kind, tmp_path):
    content, name = CONTENTS[kind]
    (tmp_path / "net.bpxp").write_bytes(content)
    with pytest.raises(ValueError, match=f"not a checkpoint, but {name}.*BPX-E061"):
        bpxp.Network.load(tmp_path / "net.bpxp")


def test_what_is_not_known_has_no_name():
    assert what_it_is(b"") == what_it_is(bytes(300)) == what_it_is(b"\x00\x00\x08\x03") == ("", "")
