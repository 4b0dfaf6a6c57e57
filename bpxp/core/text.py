"""Text for terminals: aligned tables, and lines in which nothing is a control sequence."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from bpxp.errors import printable


def table(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """Return rows of cells as lines with aligned columns: to the right for numbers, else to the left."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    align = str.rjust if numbers else str.ljust
    return "\n".join("  ".join(map(align, row, widths)).rstrip() for row in rows)


def shell_word(text: str) -> str:
    """Return a word of a command line as a shell reads it; with control characters in the quotes ``$'…'``."""
    import shlex

    if text.isprintable():
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return (
        "$'" + "".join(c if c.isprintable() else "".join(f"\\x{b:02x}" for b in os.fsencode(c)) for c in escaped) + "'"
    )


def in_options(error: Exception, options: Any) -> str:
    """Return what an error says, the arguments of its fix as options: ``--backend numpy`` for backend='numpy'."""
    import re

    def option(found: re.Match[str]) -> str:
        name, quoted, bare = found.groups()
        return f"--{name.replace('_', '-')} {quoted or bare}" if hasattr(options, name) else found[0]

    text, fix = str(error), getattr(error, "fix", "")
    return text.replace(fix, re.sub(r"\b(\w+)=(?:'([^']*)'|([\w.]+))", option, fix)) if fix else text


def say(text: object, *streams: Any) -> None:
    """Print lines on a stream, by default standard output, whatever the stream is and the lines contain.

    A program without a console has None for its streams: nothing is printed. Control characters are escaped, and so is
    what the stream's encoding does not have.
    """
    (stream,) = streams or (sys.stdout,)
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    line = printable(str(text), keep="\n").encode(encoding, "backslashreplace").decode(encoding)
    stream.write(f"{line}\n")
    if hasattr(stream, "flush"):
        stream.flush()


def report(text: object, *streams: Any) -> None:
    """Print lines as `say` does; a closed pipe, a full disk or a lost terminal is no reason to end the work."""
    with contextlib.suppress(OSError, ValueError):
        say(text, *streams)


def is_terminal(stream: Any) -> bool:
    """Return whether a stream is a terminal; not if it is missing, closed, or has no `isatty`."""
    try:
        return bool(stream.isatty())
    except (AttributeError, OSError, ValueError):
        return False


def drop_broken_pipe() -> None:
    """Send what cannot be written to a closed pipe to the null device: Python would fail on it at its exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
