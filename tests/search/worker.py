"""A process of its own that works on a study: python worker.py STORAGE RESULTS COUNT [SEED [KILL_AT]].

It appends ``number`` of each subnet that it evaluates to RESULTS, and kills itself in the evaluation KILL_AT.
"""
from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmbignas.search import Proposal, SubnetStudy  # noqa: E402
from tests.search.tables import costs_of, line_of, tiny_space  # noqa: E402


def open_study(storage: str, seed: int | None = 0, **settings: object) -> SubnetStudy:
    space = tiny_space()
    settings = {'sampler': 'random', **settings}
    return SubnetStudy(space, costs_of(space), ['accuracy', 'macs'], storage, seed=seed, **settings)  # type: ignore


def evaluate(study: SubnetStudy, proposal: Proposal, results: Path, seconds: float = 0.) -> None:
    time.sleep(seconds)
    with results.open('a') as file:
        file.write(f'{proposal.number}\n')
    assert study.tell(proposal, line_of(study, proposal))


def main() -> None:
    storage, results, count, *rest = sys.argv[1:]
    seed = int(rest[0]) if rest else 0
    kill_at = int(rest[1]) if len(rest) > 1 else None
    study = open_study(storage, seed)
    for number in range(int(count)):
        proposal = study.ask()
        if proposal is None:
            break
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        evaluate(study, proposal, Path(results), 0.01)


if __name__ == '__main__':
    main()
