"""Several processes on one study, and processes that are killed."""
from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mmbignas.search.owner import is_gone, this_process
from tests.search import worker
from tests.search.tables import accuracy, tiny_space

STORAGES = ('search.db', 'search.journal')


def start(*args: Any) -> Any:
    process = worker.Process(target=worker.work, args=args)
    process.start()
    return process


def numbers_in(results: Path) -> list[int]:
    return [int(line) for line in results.read_text().split()]


@pytest.mark.parametrize('name', STORAGES)
def test_three_processes_evaluate_each_subnet_once(tmp_path: Path, name: str) -> None:
    processes = [start(tmp_path / 'new' / name, tmp_path / 'results') for _ in range(3)]  # also the folder is made once
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert sorted(numbers_in(tmp_path / 'results')) == list(range(tiny_space().size))
    study = worker.open_study(tmp_path / 'new' / name)
    assert study.ask() is None
    counts = study.counts()
    assert (counts['finished'], counts['running']) == (36, 0)
    lines = study.lines()
    assert sorted(line['number'] for line in lines) == list(range(36))
    assert all(line['metrics']['accuracy'] == accuracy(line['number']) for line in lines)
    owners = {trial.user_attrs['owner'] for trial in study.study.trials}
    assert 1 < len(owners) <= 3


@pytest.mark.parametrize('name', STORAGES)
def test_kill_and_resume(tmp_path: Path, name: str) -> None:
    worker.work(tmp_path / f'whole_{name}', tmp_path / 'whole', 20)
    killed = start(tmp_path / name, tmp_path / 'results', 20, 9)
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    before = numbers_in(tmp_path / 'results')
    assert len(before) == 9

    study = worker.open_study(tmp_path / name)
    assert study.counts() == dict(finished=9, running=0, failed=1)  # the dead do not count as running
    interrupted = study.study.trials[-1].user_attrs['subnet']
    proposal = study.ask()
    assert str(proposal.number) == interrupted  # the subnet of the dead comes first
    assert study.counts() == dict(finished=9, running=1, failed=1)
    worker.evaluate(study, proposal, tmp_path / 'results')
    for _ in range(10):
        worker.evaluate(study, study.ask(), tmp_path / 'results')
    assert numbers_in(tmp_path / 'results') == numbers_in(tmp_path / 'whole')  # as if nothing had happened
    assert [line['number'] for line in study.lines()] == numbers_in(tmp_path / 'whole')


def test_killed_between_the_result_and_the_end(tmp_path: Path) -> None:
    study = worker.open_study(tmp_path / 'search.db')
    proposal = study.ask()
    line = dict(number=proposal.number, **proposal.costs, metrics=dict(accuracy=0.25))
    study._set(proposal, 'line', line)
    study._set(proposal, 'owner', dead_owner())
    following = study.ask()
    assert following.number != proposal.number
    assert study.lines() == [line]
    assert study.study.trials[0].values == [0.25, proposal.costs['macs']]


def dead_owner() -> str:
    process = subprocess.Popen([sys.executable, '-c', ''])
    process.wait()
    host, _, _ = this_process().rsplit(':', 2)
    return f'{host}:{process.pid}:12345'


def test_the_owner() -> None:
    assert not is_gone(this_process())
    assert is_gone(dead_owner())
    host, pid, _ = this_process().rsplit(':', 2)
    assert is_gone(f'{host}:{pid}:1')  # another process with the same id
    assert not is_gone(f'elsewhere/x:{pid}:1')
    assert socket.gethostname() in host
    zombie = subprocess.Popen([sys.executable, '-c', ''])
    for _ in range(500):
        if Path(f'/proc/{zombie.pid}/stat').read_text().rpartition(')')[2].split()[0] == 'Z':
            break
        time.sleep(0.01)
    assert is_gone(f'{host}:{zombie.pid}:1')
    zombie.wait()


def test_a_silent_process_elsewhere(tmp_path: Path) -> None:
    elsewhere = worker.open_study(tmp_path / 'search.db', stale_after=100.)
    here = worker.open_study(tmp_path / 'search.db', stale_after=100.)
    proposal = elsewhere.ask()
    elsewhere._set(proposal, 'owner', 'elsewhere/x:1:1')
    elsewhere._set(proposal, 'heartbeat', time.time() - 90)
    assert here.ask().number != proposal.number
    elsewhere._set(proposal, 'heartbeat', time.time() - 110)
    again = here.ask()
    assert again.number == proposal.number
    elsewhere._last_heartbeat = -1e9
    elsewhere.keep_alive(proposal)  # too late, and no error
    assert not elsewhere.tell(proposal, dict(**proposal.costs, metrics={}))
    elsewhere.fail(proposal)
    assert here.tell(again, dict(**again.costs, metrics={}))
    assert here.ask().number != proposal.number


def test_heartbeats_are_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = worker.open_study(tmp_path / 'search.db', stale_after=100.)
    proposal = study.ask()
    now, written = [time.monotonic()], []
    monkeypatch.setattr('mmbignas.search.study.time.monotonic', lambda: now[0])
    monkeypatch.setattr(study, '_set', lambda *args: written.append(now[0]))
    begin = now[0]
    while now[0] < begin + 60:
        study.keep_alive(proposal)
        now[0] += 0.25
    assert 10 <= len(written) <= 12  # every 5 seconds


def test_processes_with_the_same_seed_draw_others(tmp_path: Path) -> None:
    first = worker.open_study(tmp_path / 'search.db', seed=3)
    second = worker.open_study(tmp_path / 'other.db', seed=3)
    assert first.ask().number == second.ask().number  # alone, each on its own study
    trial = first.study.trials[0]
    first.study._storage.set_trial_user_attr(trial._trial_id, 'owner', 'elsewhere/x:1:1')
    assert first.ask().number != second.ask().number  # the first is not alone any more


def test_two_that_draw_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes between the first one's drawing and its claim."""
    first, second = (worker.open_study(tmp_path / 'search.db') for _ in range(2))
    claim, inner = first._claim, []

    def late(drawn: object) -> object:
        if not inner:
            inner.append(second.ask())
        return claim(drawn)

    monkeypatch.setattr(first, '_claim', late)
    proposal = first.ask()
    assert proposal.number != inner[0].number
    assert [trial.state.name for trial in first.study.trials] == ['RUNNING', 'FAIL', 'RUNNING']
    subnets = [trial.user_attrs['subnet'] for trial in first.study.trials]
    assert subnets[0] == subnets[1] != subnets[2]
