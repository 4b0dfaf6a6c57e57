"""A small data set in MNIST's format, and a web server on the loopback device that misbehaves on demand."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bpxp.data import write_idx

Handler = Callable[[http.server.BaseHTTPRequestHandler], None]
NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


class Server:
    """Answers a path by what `routes` has for it: bytes, or a function that writes the answer; 404 otherwise."""

    def __init__(self) -> None:
        self.routes: dict[str, bytes | Handler] = {}
        self.asked: list[str] = []
        self.release = threading.Event()  # ends an answer that hangs
        server = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                answer = server.routes.get(self.path)
                if answer is None:
                    self.send_error(404)
                elif callable(answer):
                    answer(self)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *args: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self.release.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(10)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    yield running
    running.close()


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """The four arrays of a data set of 3 classes: 30 samples for training, 12 for testing, 5 by 4 pixels."""
    rng = np.random.default_rng(0)
    made = {}
    for prefix, n in (("train", 30), ("t10k", 12)):
        made[f"{prefix}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 5, 4), np.uint8)
        made[f"{prefix}-labels-idx1-ubyte"] = (np.arange(n) % 3).astype(np.uint8)
    return made


@pytest.fixture
def write(arrays: dict[str, np.ndarray]) -> Callable[..., Path]:
    """Write the four files into a folder, as .gz unless said otherwise."""

    def write_files(folder: Path, end: str = ".gz") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            write_idx(folder / f"{name}{end}", array)
        return folder

    return write_files


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
