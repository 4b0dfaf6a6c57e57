"""Ctrl-C and SIGTERM: heard at once, obeyed where a step ends, and passed on when everything is in its place."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Interrupts:
    """A block in which the first signal is only noted; the second ends the block at once.

    Handlers are installed in the main thread alone, where Python runs them, never in the place of one that ignores a
    signal, and are put back at the end of the block. `pass_on` then does what the signal would have done.

    Attributes
    ----------
    heard : signal.Signals or None
        The first signal that came.
    """

    def __init__(self) -> None:
        self.heard: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if handler is not None and handler is not signal.SIG_IGN:  # None: not a handler of Python's
                    self._before[number] = handler
                    signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.heard is None:
            self.heard = signal.Signals(number)
        else:
            self._deliver(signal.Signals(number))

    def pass_on(self) -> None:
        """Do, after the block, what the signal that was heard is there for.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C: a program that does not catch it ends with exit code 130.
        SystemExit
            After SIGTERM, with the code 143. A handler of the program's own is called instead, and decides.
        """
        if self.heard is not None:
            self._deliver(self.heard)

    def _deliver(self, number: signal.Signals) -> None:
        handler = self._before[number]
        if handler is signal.default_int_handler:
            raise KeyboardInterrupt
        if handler is signal.SIG_DFL and number == signal.SIGTERM:
            raise SystemExit(128 + number)  # what a shell reports; and `finally` and `atexit` have their turn
        if callable(handler):
            handler(number, None)
        else:
            signal.signal(number, handler)
            signal.raise_signal(number)
