"""Ctrl-C and SIGTERM: noted at once, obeyed at the end of a step, and re-delivered when the state is consistent."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Interrupts:
    """A block in which the first signal is only noted; the second ends the block at once.

    Handlers are installed only in the main thread, where Python runs them, never over one that ignores the signal, and
    are restored at the end of the block. `pass_on` then re-delivers the signal.
    """

    def __init__(self) -> None:
        self.heard: signal.Signals | None = None  # the first that came
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if handler is not None and handler is not signal.SIG_IGN:  # None: not installed from Python
                    self._before[number] = handler
                    signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.heard is None:
            self.heard = signal.Signals(number)
        else:
            self._deliver(signal.Signals(number))

    def pass_on(self) -> None:
        """Re-deliver the signal that was noted, after the block.

        Ctrl-C raises KeyboardInterrupt, exit code 130, and SIGTERM SystemExit(143); a handler of the program is called
        instead.
        """
        if self.heard is not None:
            self._deliver(self.heard)

    def _deliver(self, number: signal.Signals) -> None:
        handler = self._before[number]
        if handler is signal.default_int_handler:
            raise KeyboardInterrupt
        if handler is signal.SIG_DFL and number == signal.SIGTERM:
            raise SystemExit(128 + number)  # what a shell reports; `finally` and `atexit` run
        if callable(handler):
            handler(number, None)
        else:
            signal.signal(number, handler)
            signal.raise_signal(number)
