"""What a file really is, by its first bytes: a web page, a Git LFS pointer or an archive under a data file's name."""

from __future__ import annotations

KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "git lfs pull"),
    (b"<!doctype", "a web page (HTML), not the file itself", "download the file itself, not the page about it"),
    (b"<html", "a web page (HTML), not the file itself", "download the file itself, not the page about it"),
    (b"<?xml", "an XML text, such as a server's answer", "download the file again"),
    (b"PK\x03\x04", "a zip archive", "unzip it"),
    (b"PK\x05\x06", "an empty zip archive", "download the file again"),
    (b"\x1f\x8b", "a file compressed by gzip", "gunzip it"),
    (b"BZh", "a file compressed by bzip2", "bunzip2 it"),
    (b"\xfd7zXZ\x00", "a file compressed by xz", "unxz it"),
    (b"\x28\xb5\x2f\xfd", "a file compressed by zstd", "unzstd it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"Rar!", "a rar archive", "unpack it"),
    (b"\x93NUMPY", "an array in NumPy's format", "np.load(path)"),
    (b"\x89HDF", "an HDF5 file", "read it with h5py"),
    (b"PAR1", "a Parquet file", "read it with pandas.read_parquet"),
    (b"\x89PNG", "a PNG picture", ""),
    (b"\xff\xd8\xff", "a JPEG picture", ""),
    (b"%PDF", "a PDF document", ""),
    (b"{", "a JSON text, such as a server's answer", "download the file again"),
)
LENGTH = 300  # bytes that tell


def what_it_is(content: bytes) -> tuple[str, str]:
    """Return in words what begins like this, and what to do with it; twice an empty string if it is not known."""
    start = content.removeprefix(b"\xef\xbb\xbf").lstrip()  # a mark of byte order, and blank lines before a page
    for kind, name, fix in KINDS:
        if content.startswith(kind) or start[: len(kind)].lower() == kind:
            return name, fix
    if content[257:262] == b"ustar":
        return "a tar archive", "unpack it"
    return "", ""
