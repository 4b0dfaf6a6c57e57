"""Writing a file so that nobody ever sees half of it."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to a new file beside `path`, force it to the disk, and rename it.

    Of several writers the last one wins, and every reader sees the whole file of one of them. The new file is removed
    if anything goes wrong, Ctrl-C included; an old file at `path` is then as it was.
    """
    # Not tempfile: its mode 0600 would lock others out of a shared folder.
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        with open(new, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):  # the rename is on the disk only when the folder is
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(
                OSError
            ):  # some network file systems cannot; the new file is in place all the same
                os.fsync(folder)
        finally:
            os.close(folder)
