"""Processes that work on a study."""
from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

from mmbignas.search import Proposal, SubnetStudy, owner
from mmbignas.search.owner import this_process
from tests.search.tables import costs_of, line_of, tiny_space

# Forked, since importing what is there already takes seconds.
Process = multiprocessing.get_context('fork').Process


def open_study(storage: Path | str, seed: int | None = 0, **settings: Any) -> SubnetStudy:
    space = tiny_space()
    return SubnetStudy(space, costs_of(space), ['accuracy', 'macs'], storage, seed=seed,
                       **{'sampler': 'random', **settings})


def dead_owner() -> str:
    """The name of a process of this machine that has ended."""
    process = Process(target=int)
    process.start()
    process.join()
    host, _, _ = this_process().rsplit(':', 2)
    return f'{host}:{process.pid}:12345'


def evaluate(study: SubnetStudy, proposal: Proposal, results: Path) -> None:
    """Append the number to a file, and tell."""
    with results.open('a') as file:
        file.write(f'{proposal.number}\n')
    assert study.tell(proposal, line_of(study, proposal))


def work(storage: Path, results: Path, count: int = 1000, kill_at: int | None = None) -> None:
    """Evaluate subnets until there are none left, or kill the process in one of them."""
    study = open_study(storage)
    for number in range(count):
        proposal = study.ask()
        if proposal is None:
            break
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        evaluate(study, proposal, results)


def work_elsewhere(storage: Path | str, results: Path, host: str, shift: float, stale_after: float,
                   kill_at: int | None = None, slow_at: int | None = None) -> None:
    """Evaluate subnets until all are evaluated, as a process of another machine.

    Args:
        storage: of the study.
        results: file for the numbers of those that this process evaluated.
        host: the machine.
        shift: seconds that its clock is ahead.
        stale_after: of the study.
        kill_at: which of its evaluations kills it.
        slow_at: which of them takes twice as long as a process may be silent.
    """
    clock = time.time
    owner._host = lambda: host  # type: ignore[assignment]
    time.time = lambda: clock() + shift  # type: ignore[assignment]
    study, number = open_study(storage, stale_after=stale_after), 0
    while study.counts()['finished'] < study.space.size:
        proposal = study.ask()
        if proposal is None:  # others evaluate the last ones
            time.sleep(0.05)
            continue
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(2 * stale_after if number == slow_at else 0.02)
        evaluate(study, proposal, results)
        number += 1
