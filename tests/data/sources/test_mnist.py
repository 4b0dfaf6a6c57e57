"""MNIST: searched in order, downloaded from a server that misbehaves, never kept or returned with other bytes."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import http.server
import importlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest

from bpxp.data import Dataset, mnist, write_idx
from bpxp.data.sources.fetch import Published, fetch
from bpxp.errors import BpxpWarning, DatasetChecksumError, DatasetFormatError, DatasetUnavailableError, InvalidTypeError

room = importlib.import_module("bpxp.data.sources.mnist")  # bpxp.data.mnist is the function
REAL = room.MNIST, room.FASHION
ROOT = Path(__file__).parents[3]
IMAGES = "train-images-idx3-ubyte"
Write = Callable[..., Path]
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@pytest.fixture
def raw(tmp_path: Path, write: Write) -> dict[str, bytes]:
    """The content of the four published files."""
    return {p.name: p.read_bytes() for p in write(tmp_path / "published", "").iterdir()}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.delenv(room.ENVIRONMENT, raising=False)
    return tmp_path / "cache" / "bpxp" / "mnist"


@pytest.fixture(autouse=True)
def published(raw: dict[str, bytes], cache: Path, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MNIST be the small data set, with two mirrors on the loopback device; the first has the files as .gz."""
    names = [p.name for p in room.MNIST.files]
    files = tuple(
        Published(name, len(raw[name]), len(gzip.compress(raw[name])), hashlib.sha256(raw[name]).hexdigest())
        for name in names
    )
    mirrors = (f"{server.url}one/", f"{server.url}two/")
    monkeypatch.setattr(room, "MNIST", room.MNIST._replace(files=files, mirrors=mirrors))
    for name in names:
        for mirror in ("one", "two"):
            server.routes[f"/{mirror}/{name}.gz"] = gzip.compress(raw[name])


def check(parts: tuple[Dataset, Dataset], arrays: dict[str, np.ndarray]) -> None:
    for part, prefix in zip(parts, ("train", "t10k"), strict=True):
        np.testing.assert_array_equal(part.x[..., 0], arrays[f"{prefix}-images-idx3-ubyte"], strict=True)
        np.testing.assert_array_equal(part.y, arrays[f"{prefix}-labels-idx1-ubyte"].astype(np.int32), strict=True)
    assert [p.name for p in parts] == ["mnist train", "mnist test"]


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# Searching


@pytest.mark.parametrize("subfolder", ["mnist", "MNIST/raw", "."])
@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("how", ["folder", "environment"])
def test_files_that_are_here(
    tmp_path: Path,
    write: Write,
    arrays: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    server: Any,
    subfolder: str,
    end: str,
    how: str,
) -> None:
    write(tmp_path / "mine" / subfolder, end)
    if how == "environment":
        monkeypatch.setenv(room.ENVIRONMENT, str(tmp_path / "mine"))
    check(mnist(folder=tmp_path / "mine" if how == "folder" else None), arrays)
    assert not server.asked


def test_the_cache_and_the_systems_folder(
    tmp_path: Path, write: Write, arrays: dict[str, np.ndarray], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MNIST", room.MNIST._replace(system=(write(tmp_path / "usr"),)))
    check(mnist(download=False), arrays)
    write(cache)
    monkeypatch.setattr(room, "MNIST", room.MNIST._replace(system=()))
    check(mnist(download=False), arrays)


def test_files_may_lie_in_different_places(
    tmp_path: Path, write: Write, arrays: dict[str, np.ndarray], server: Any, cache: Path
) -> None:
    (write(tmp_path / "mine") / f"{IMAGES}.gz").unlink()
    check(mnist(folder=tmp_path / "mine", progress=False), arrays)
    assert server.asked == [f"/one/{IMAGES}.gz"]
    assert f"{IMAGES}.gz" in files(tmp_path / "mine")  # kept where the user said
    assert not cache.exists()


def test_a_bad_file_in_a_named_folder_is_an_error(tmp_path: Path, write: Write, server: Any) -> None:
    folder = write(tmp_path / "mine", "")
    content = bytearray((folder / IMAGES).read_bytes())
    content[-1] ^= 1
    (folder / IMAGES).write_bytes(content)
    with pytest.raises(DatasetChecksumError, match=hashlib.sha256(content).hexdigest()) as caught:
        mnist(folder=folder)
    assert room.MNIST.files[0].sha256 in str(caught.value)
    assert IMAGES in str(caught.value)
    assert "Remove or replace it" in caught.value.__notes__[0]
    (folder / IMAGES).write_bytes(content[:-1])
    with pytest.raises(DatasetFormatError, match="truncated"):
        mnist(folder=folder)
    assert not server.asked
    assert (folder / IMAGES).read_bytes() == content[:-1]  # a file of the user's is left alone


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_bad_file_in_the_cache_is_replaced(
    write: Write, arrays: dict[str, np.ndarray], cache: Path, server: Any, end: str
) -> None:
    (write(cache, end) / f"{IMAGES}{end}").write_bytes(b"half a fi")
    check(mnist(progress=False), arrays)
    assert server.asked == [f"/one/{IMAGES}.gz"]
    check(mnist(download=False), arrays)


def test_the_other_collections_files_are_passed_over(
    tmp_path: Path, write: Write, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    """Both have the same names: Fashion-MNIST in BPXP_DATA_DIR must not stand in the way of MNIST."""
    folder = tmp_path / "mine"
    folder.mkdir()
    write_idx(folder / IMAGES, np.zeros((3, 5, 4), np.uint8))
    digest = hashlib.sha256((folder / IMAGES).read_bytes()).hexdigest()
    other = room.FASHION.files[0]._replace(sha256=digest)
    monkeypatch.setattr(room, "FASHION", room.FASHION._replace(files=(other,)))
    monkeypatch.setenv(room.ENVIRONMENT, str(folder))
    check(mnist(progress=False), arrays)


def test_a_folder_that_is_no_path() -> None:
    with pytest.raises(InvalidTypeError, match=r"mnist\(folder=…\)"):
        mnist(folder=3)  # type: ignore[arg-type]


# Downloading


def test_download_keeps_what_it_checked(arrays: dict[str, np.ndarray], server: Any, cache: Path, capfd: Any) -> None:
    check(mnist(), arrays)
    assert len(server.asked) == 4
    assert files(cache) == sorted(f"{p.name}.gz" for p in room.MNIST.files)
    err = capfd.readouterr().err
    assert err.count("bpxp: downloading") == 4
    assert f"from {server.url}one/{IMAGES}.gz" in err
    check(mnist(download=False), arrays)
    assert len(server.asked) == 4


def test_no_progress(arrays: dict[str, np.ndarray], capfd: Any) -> None:
    check(mnist(progress=False), arrays)
    assert capfd.readouterr().err == ""


def test_a_bar_on_a_terminal(arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr("bpxp.data.sources.fetch.sys.stderr.isatty", lambda: True, raising=False)
    check(mnist(), arrays)
    err = capfd.readouterr().err
    assert IMAGES in err
    assert "bpxp: downloading" not in err


def test_a_mirror_that_sends_it_unpacked(
    arrays: dict[str, np.ndarray], raw: dict[str, bytes], server: Any, cache: Path
) -> None:
    for name, content in raw.items():
        server.routes[f"/one/{name}.gz"] = content
    check(mnist(progress=False), arrays)
    assert files(cache) == sorted(raw)


def status(code: int, **headers: str) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()

    return answer


def short(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "500")
    request.end_headers()
    request.wfile.write(b"\x1f\x8b and then the line breaks")


def endless(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range(10_000):
            request.wfile.write(bytes(1 << 16))
    except OSError:
        return  # the client has gone, as it should


BAD: list[tuple[str, bytes | Answer, str, bool]] = [
    (
        "other-bytes",
        gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 1, 9]), mtime=0),
        "got [0-9a-f]{64}, expected SHA-256",
        True,
    ),
    ("login-page", b"<html>Please log in</html>", "not an IDX file.* have SHA-256 [0-9a-f]{64}", True),
    ("half-a-file", gzip.compress(bytes(100), mtime=0)[:-9], "have SHA-256", True),
    ("nothing", b"", r"\(empty\)", True),
    ("endless", endless, "sent more than 1,640 bytes", True),
    ("forbidden", status(403), "HTTP status 403", False),
    ("gone", status(404), "HTTP status 404", False),
    ("broken-line", short, "IncompleteRead|ChunkedEncodingError|ConnectionError", False),
    ("loop", status(302, Location="loop.gz"), "TooManyRedirects|HTTP status", False),
    ("strange-header", status(200, Content_Encoding="gzip", X="y"), "empty|Decod", True),
]


@pytest.mark.parametrize(("answer", "reason", "wrong"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_mirror_is_left_for_the_next(
    server: Any, arrays: dict[str, np.ndarray], cache: Path, answer: bytes | Answer, reason: str, wrong: bool
) -> None:
    server.routes[f"/one/{IMAGES}.gz"] = answer
    server.routes["/one/loop.gz"] = status(302, Location="loop.gz")
    file = room.MNIST.files[0]
    fetched, failures = fetch(file, room.MNIST.mirrors, progress=False, timeout=(2, 2))
    assert fetched is not None
    np.testing.assert_array_equal(fetched.array, arrays[IMAGES])
    assert len(failures) == 1
    assert failures[0].url == f"{server.url}one/{IMAGES}.gz"
    assert re.search(reason, failures[0].reason)
    assert failures[0].wrong == wrong

    server.asked.clear()
    check(mnist(progress=False), arrays)
    # The mirror that failed is asked last from then on.
    assert [path.split("/")[1] for path in server.asked if "loop" not in path] == ["one", "two", "two", "two", "two"]
    assert files(cache) == sorted(f"{p.name}.gz" for p in room.MNIST.files)


def test_redirects_are_followed(server: Any, raw: dict[str, bytes]) -> None:
    server.routes[f"/one/{IMAGES}.gz"] = status(302, Location="/elsewhere")
    server.routes["/elsewhere"] = raw[IMAGES]
    fetched, failures = fetch(room.MNIST.files[0], room.MNIST.mirrors, progress=False)
    assert fetched is not None
    assert not failures


def test_a_mirror_that_stalls(server: Any, arrays: dict[str, np.ndarray]) -> None:
    def stall(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "500")
        request.end_headers()
        request.wfile.write(b"\x1f\x8b")
        server.release.wait(20)

    server.routes[f"/one/{IMAGES}.gz"] = stall
    begin = time.monotonic()
    fetched, failures = fetch(room.MNIST.files[0], room.MNIST.mirrors, progress=False, timeout=(0.3, 0.3))
    assert time.monotonic() - begin < 5
    assert fetched is not None
    np.testing.assert_array_equal(fetched.array, arrays[IMAGES])
    assert "timed out" in failures[0].reason


def test_wrong_bytes_everywhere(server: Any, cache: Path) -> None:
    wrong = bytes([0, 0, 8, 1, 0, 0, 0, 1, 9])
    for mirror in ("one", "two"):
        server.routes[f"/{mirror}/{IMAGES}.gz"] = gzip.compress(wrong)
    with pytest.raises(DatasetChecksumError) as caught:
        mnist(progress=False)
    text = str(caught.value)
    for part in (
        hashlib.sha256(wrong).hexdigest(),
        room.MNIST.files[0].sha256,
        f"{server.url}one/",
        f"{server.url}two/",
    ):
        assert part in text
    assert "removed" in text
    assert not cache.exists()


def check_instructions(text: str, folder: Path) -> None:
    for file in room.MNIST.files:
        assert f"{file.name}.gz ({file.packed:,} bytes; {file.size:,} unpacked)" in text
    assert str(folder) in text
    assert "BPXP_DATA_DIR" in text


def test_offline(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    with socket.socket() as unused:  # bound, not listening: a connection is refused
        unused.bind(("127.0.0.1", 0))
        mirror = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        monkeypatch.setattr(room, "MNIST", room.MNIST._replace(mirrors=(mirror, f"{mirror}b/")))
        with pytest.raises(DatasetUnavailableError) as caught:
            mnist(progress=False)
    check_instructions(str(caught.value), cache)
    assert f"{mirror}{IMAGES}.gz: ConnectionError" in str(caught.value)
    assert f"{mirror}b/{IMAGES}.gz: ConnectionError" in str(caught.value)
    assert not cache.exists()


def test_no_network(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """No name is known, as on a machine without a network: all mirrors are named, and what to do."""

    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    mirrors = ("https://one.example/mnist/", "https://two.example/mnist/")
    monkeypatch.setattr(room, "MNIST", room.MNIST._replace(mirrors=mirrors))
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DatasetUnavailableError) as caught:
        mnist(progress=False)
    check_instructions(str(caught.value), cache)
    for mirror in mirrors:
        assert re.search(re.escape(f"{mirror}{IMAGES}.gz") + ".*Name or service not known", str(caught.value))
    assert not cache.exists()


def test_without_download_nothing_is_asked(server: Any, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetUnavailableError, match="download=False") as caught:
        mnist(download=False)
    check_instructions(str(caught.value), cache)
    with pytest.raises(DatasetUnavailableError) as caught:
        mnist(folder=tmp_path / "mine", download=False)
    check_instructions(str(caught.value), tmp_path / "mine")
    assert not server.asked


def test_a_cache_that_cannot_be_written(arrays: dict[str, np.ndarray], cache: Path, server: Any) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the folder should be")
    with pytest.warns(BpxpWarning, match="cannot be written.*BPXP_DATA_DIR") as caught:
        check(mnist(progress=False), arrays)
    assert len(caught) == 4
    assert caught[0].filename == __file__


def test_a_cache_that_may_only_be_read(
    arrays: dict[str, np.ndarray], cache: Path, write: Write, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    (write(cache) / f"{IMAGES}.gz").unlink()

    def refused(path: object, mode: str, **how: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("bpxp.core.atomic.open", refused, raising=False)  # a test may run as root, whom no mode stops
    with pytest.warns(BpxpWarning, match=f"{IMAGES}.gz cannot be written.*Read-only.*BPXP_DATA_DIR"):
        check(mnist(progress=False), arrays)
    assert server.asked == [f"/one/{IMAGES}.gz"]  # what is there is read
    assert len(files(cache)) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupted(descriptor: int) -> None:
        raise error

    monkeypatch.setattr("bpxp.core.atomic.os.fsync", interrupted)
    if isinstance(error, OSError):
        with pytest.warns(BpxpWarning, match="No space left"):
            mnist(progress=False)
    else:
        with pytest.raises(KeyboardInterrupt):
            mnist(progress=False)
    assert files(cache) == []


def test_an_interrupted_download_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: object, chunk: bytes) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("bpxp.data.sources.fetch._Bounded.write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mnist(progress=False)
    assert not cache.exists()


def test_no_part_of_a_file_is_ever_seen(
    arrays: dict[str, np.ndarray], raw: dict[str, bytes], cache: Path, server: Any
) -> None:
    seen: list[list[str]] = []

    def slow(request: http.server.BaseHTTPRequestHandler) -> None:
        content = gzip.compress(raw[IMAGES])
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        for i in range(0, len(content), 100):
            time.sleep(0.01)
            seen.append(files(cache) if cache.exists() else [])
            request.wfile.write(content[i : i + 100])
            request.wfile.flush()

    server.routes[f"/one/{IMAGES}.gz"] = slow
    check(mnist(progress=False), arrays)
    assert len(seen) > 3
    assert not any(seen)


BOMBS = {
    # Zeros without end, as many as a mirror may send; a header that announces them; one that announces 2^96 of them.
    "zeros": gzip.compress(bytes(100_000_000), 9, mtime=0)[:1600],
    "announced": gzip.compress(bytes([0, 0, 8, 1, 5, 0xF5, 0xE1, 0]) + bytes(1_000_000), 9, mtime=0),
    "header": gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12, mtime=0),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_from_a_mirror_costs_no_memory(server: Any, bomb: str) -> None:
    file = room.MNIST.files[0]
    server.routes[f"/one/{IMAGES}.gz"] = BOMBS[bomb]
    fetch(file, room.MNIST.mirrors[1:], progress=False)  # what it imports is not measured
    tracemalloc.start()
    try:
        fetched, (failure,) = fetch(file, room.MNIST.mirrors, progress=False)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert fetched is not None
    assert failure.wrong


CHILD = """
import importlib, json, platformdirs, sys
from pathlib import Path
from bpxp.data.sources.fetch import Published
room = importlib.import_module("bpxp.data.sources.mnist")
told = json.loads(sys.stdin.readline())
platformdirs.user_cache_path = lambda name: Path(told["cache"])
files = tuple(Published(*file) for file in told["files"])
room.MNIST = room.MNIST._replace(files=files, mirrors=tuple(told["mirrors"]))
print("ready", flush=True)
sys.stdin.readline()
train, test = room.mnist(progress=False)
print(int(train.x.sum()), int(test.x.sum()), flush=True)
"""


def test_two_processes_at_once(arrays: dict[str, np.ndarray], cache: Path, server: Any) -> None:
    told = {"cache": str(cache.parent), "files": room.MNIST.files, "mirrors": room.MNIST.mirrors}
    line = [sys.executable, "-c", CHILD]
    with contextlib.ExitStack() as stack:
        both = [
            stack.enter_context(
                subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            )
            for _ in range(2)
        ]
        for child in both:
            assert child.stdin
            child.stdin.write(json.dumps(told) + "\n")
            child.stdin.flush()
        for child in both:
            assert child.stdout
            assert child.stdout.readline() == "ready\n"
        for child in both:  # both begin now
            assert child.stdin
            child.stdin.write("go\n")
            child.stdin.flush()
        sums = " ".join(str(int(arrays[f"{prefix}-images-idx3-ubyte"].sum())) for prefix in ("train", "t10k"))
        for child in both:
            assert child.communicate(timeout=60)[0] == f"{sums}\n"
            assert child.returncode == 0
    assert files(cache) == sorted(f"{p.name}.gz" for p in room.MNIST.files)  # and no leftovers
    check(mnist(download=False), arrays)


def test_several_at_once(arrays: dict[str, np.ndarray], cache: Path) -> None:
    errors: list[BaseException] = []

    def load() -> None:
        try:
            check(mnist(progress=False), arrays)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not errors
    assert files(cache) == sorted(f"{p.name}.gz" for p in room.MNIST.files)


def test_the_published_tables() -> None:
    """What can be known of the real files without them: sizes from shapes, names, and addresses that are encrypted."""
    for collection in REAL:
        sizes = [16 + n * 28 * 28 if i == 0 else 8 + n for n in (60_000, 10_000) for i in (0, 1)]
        assert [f.size for f in collection.files] == sizes
        assert len({f.sha256 for f in collection.files}) == 4
        assert all(len(f.sha256) == 64 and int(f.sha256, 16) for f in collection.files)
        assert len(collection.classes) == 10
        assert all(mirror.endswith("/") for mirror in collection.mirrors)
        assert collection.mirrors[0].startswith("https://")
        assert not any("lecun" in mirror for mirror in collection.mirrors)
    assert len({f.sha256 for collection in REAL for f in collection.files}) == 8
