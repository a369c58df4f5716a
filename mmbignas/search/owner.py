"""Which process evaluates a subnet, and whether it is still there."""
from __future__ import annotations

import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError

THREAD = 'mmbignas-heartbeat'


def this_process() -> str:
    """The name of this process among those of all machines: host, process id and start time."""
    pid = os.getpid()
    return f'{_host()}:{pid}:{_begin(pid) or ""}'


def is_here(owner: str) -> bool:
    """Whether the process of this name is, or was, on this host, so that :func:`is_gone` knows about it."""
    host, pid, _ = owner.rsplit(':', 2)
    return host == _host() and pid.isdigit()


def is_gone(owner: str) -> bool:
    """Whether the process of this name has ended; ``False`` for one of another host, of which nothing is known."""
    if not is_here(owner):
        return False
    _, pid, begin = owner.rsplit(':', 2)
    return _begin(int(pid)) != begin  # another process may have got the same id


def _host() -> str:
    """Where process ids mean the same: the machine since its start, and the container."""
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text().strip()
        return f'{platform.node()}/{boot}/{os.readlink("/proc/self/ns/pid")}'
    except OSError:
        return f'{platform.node()}/{uuid.getnode()}'


def _begin(pid: int) -> str | None:
    """When a process began, in clock ticks since the machine was started; ``None`` when it has ended."""
    try:
        # The second entry is the program's name in brackets, which may contain anything.
        state, *entries = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return None
    return None if state in 'ZX' else entries[18]


class Silence:
    """For how long signs of life have not changed, by the clock of this process alone.

    Clocks of two machines may differ by any amount, so the time that a sign says is compared with nothing but itself.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Any, float]] = {}

    def seconds(self, trial: int, sign: Any) -> float:
        """How long this process has seen the same sign.

        Args:
            trial: number of the trial whose process gives it.
            sign: the last one.
        """
        now = time.monotonic()
        last, since = self._seen.get(trial, (None, now))
        if trial not in self._seen or last != sign:
            self._seen[trial], since = (sign, now), now
        return now - since


class Heartbeat:
    """Calls a function again and again, in a thread of its own, until it is stopped.

    Errors in it are ignored: the next call may succeed, and if not, the step after the evaluation reports the problem.
    It ends by itself when the trial is finished, that is, was given to others.

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
