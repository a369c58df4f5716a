"""Several processes on one study, and processes that are killed."""
from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from mmbignas.search.owner import THREAD, is_gone, is_here, this_process
from tests.search import worker
from tests.search.tables import accuracy, tiny_space
from tests.search.worker import dead_owner

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


def test_the_owner() -> None:
    assert not is_gone(this_process())
    assert is_gone(dead_owner())
    host, pid, _ = this_process().rsplit(':', 2)
    assert is_gone(f'{host}:{pid}:1')  # another process with the same id
    assert not is_gone(f'elsewhere/x:{pid}:1')
    assert is_here(this_process()) and is_here(dead_owner()) and not is_here(f'elsewhere/x:{pid}:1')
    assert socket.gethostname() in host
    zombie = subprocess.Popen([sys.executable, '-c', ''])
    for _ in range(500):
        if Path(f'/proc/{zombie.pid}/stat').read_text().rpartition(')')[2].split()[0] == 'Z':
            break
        time.sleep(0.01)
    assert is_gone(f'{host}:{zombie.pid}:1')
    zombie.wait()


def test_a_silent_process_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = worker.open_study(tmp_path / 'search.db', stale_after=1e5)
    here = worker.open_study(tmp_path / 'search.db', stale_after=1e5)
    proposal = elsewhere.ask()
    elsewhere._set(proposal, 'owner', 'elsewhere/x:1:1')
    now = time.monotonic()
    # Its clock says anything: what counts is how long this process has seen the same sign.
    for seconds, sign in ((0, -1e9), (.9e5, -1e9), (1.1e5, 1e9), (2e5, 1e9), (2.05e5, 5.), (3e5, 5.)):
        monkeypatch.setattr(time, 'monotonic', lambda seconds=seconds: now + seconds)
        elsewhere._set(proposal, 'heartbeat', sign)
        assert here.counts()['running'] == 1, seconds
    monkeypatch.setattr(time, 'monotonic', lambda: now + 3.06e5)
    again = here.ask()
    assert again.number == proposal.number
    assert not elsewhere.tell(proposal, dict(**proposal.costs, metrics={}))
    elsewhere.fail(proposal)
    assert here.tell(again, dict(**again.costs, metrics={}))
    assert here.ask().number != proposal.number


@pytest.mark.parametrize('name', STORAGES)
def test_a_silent_process_here_is_alive(tmp_path: Path, name: str) -> None:
    first, second = (worker.open_study(tmp_path / name, stale_after=1e5) for _ in range(2))
    proposal = first.ask()
    first._set(proposal, 'heartbeat', time.time() - 1e9)
    assert second.ask().number != proposal.number
    assert second.counts() == dict(finished=0, running=2, failed=0)
    assert first.tell(proposal, dict(**proposal.costs, metrics={}))


def heartbeat_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == THREAD}


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError('waited in vain')


@pytest.mark.parametrize('name', STORAGES)
@pytest.mark.parametrize('end', ['tell', 'fail'])
def test_heartbeats_while_a_subnet_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, end: str
                                                ) -> None:
    before = heartbeat_threads()
    study, other = (worker.open_study(tmp_path / name, stale_after=0.2) for _ in range(2))
    proposal = study.ask()
    thread, = heartbeat_threads() - before
    assert thread.daemon

    def wait_for_another() -> None:  # as another process sees them come
        def last() -> float:
            return other.study.trials[proposal.trial].user_attrs['heartbeat']

        seen = last()
        wait_for(lambda: last() > seen)

    for _ in range(3):
        wait_for_another()
    errors: list[int] = []

    def broken(*args: Any) -> None:
        errors.append(1)
        raise OSError('disk full')

    with monkeypatch.context() as patch:
        patch.setattr(study, '_set', broken)
        wait_for(lambda: len(errors) >= 3)
    wait_for_another()

    if end == 'tell':
        assert study.tell(proposal, dict(**proposal.costs, metrics={}))
    else:
        study.fail(proposal)
    assert not thread.is_alive()


def test_heartbeats_end_when_the_subnet_was_given_to_others(tmp_path: Path) -> None:
    before = heartbeat_threads()
    study, other = (worker.open_study(tmp_path / 'search.db', stale_after=stale_after) for stale_after in (0.2, 1e5))
    proposal = study.ask()
    thread, = heartbeat_threads() - before
    other.study.tell(proposal.trial, state=TrialState.FAIL)
    wait_for(lambda: not thread.is_alive())
    assert not study.tell(proposal, dict(**proposal.costs, metrics={}))


def test_one_that_lost_its_subnet_sends_no_heartbeats(tmp_path: Path) -> None:
    before = heartbeat_threads()
    first, second = (worker.open_study(tmp_path / 'search.db') for _ in range(2))
    drawn = first._draw([], set(), 0)
    assert first._claim(drawn) is not None and second._claim(drawn) is None
    assert len(heartbeat_threads() - before) == 1


def test_deaths_are_not_held_against_a_subnet(tmp_path: Path) -> None:
    study, numbers = worker.open_study(tmp_path / 'search.db'), set()
    for _ in range(4):
        proposal = study.ask()
        numbers.add(proposal.number)
        study._set(proposal, 'owner', dead_owner())
    assert numbers == {study.ask().number}


def test_processes_with_the_same_seed_draw_others(tmp_path: Path) -> None:
    first = worker.open_study(tmp_path / 'search.db', seed=3)
    second = worker.open_study(tmp_path / 'other.db', seed=3)
    assert first.ask().number == second.ask().number  # alone, each on its own study
    trial = first.study.trials[0]
    first.study._storage.set_trial_user_attr(trial._trial_id, 'owner', 'elsewhere/x:1:1')
    later = [[study.ask().number for _ in range(6)] for study in (first, second)]
    assert later[0] != later[1]  # the first is not alone any more; a single draw may be the same by chance


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
