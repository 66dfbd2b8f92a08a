"""SIGINT and SIGTERM of a driver: counted, so that its loop can end what it started."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """What a driver was asked by signals; nothing is done in the handler itself.

    Attributes:
        number: of the first signal, or None.
        count: of signals: at the second one the user is out of patience.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.count = 0

    @property
    def exit_code(self) -> int | None:
        """128 plus the signal, as a shell says it; None where there was none."""
        return None if self.number is None else 128 + self.number

    @contextmanager
    def watched(self) -> Generator[None]:
        """Count SIGINT and SIGTERM while inside; elsewhere than in the main thread Python cannot."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        earlier = [signal.signal(number, self._note) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, earlier, strict=True):
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number if self.number is None else self.number
        self.count += 1
