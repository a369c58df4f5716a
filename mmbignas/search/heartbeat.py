"""Saying, while a subnet is evaluated, that its process is still there."""
from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from optuna.exceptions import UpdateFinishedTrialError

THREAD = 'mmbignas-heartbeat'


class Heartbeat:
    """Calls a function again and again, in a thread of its own, until it is stopped.

    What goes wrong in it is passed over: the next call may succeed, and if not, what follows the evaluation will say
    so. It ends by itself when the trial is finished, i.e. was given to others.

    Args:
        send: the function.
        seconds: between two calls.
    """

    def __init__(self, send: Callable[[], object], seconds: float) -> None:
        self._send, self._seconds = send, min(seconds, threading.TIMEOUT_MAX)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=THREAD, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            with suppress(Exception):
                try:
                    self._send()
                except UpdateFinishedTrialError:
                    return

    def stop(self) -> None:
        """End the thread; it has ended when this returns."""
        self._stopped.set()
        self._thread.join()
