"""Several machines on one study, with clocks that are hours apart: on files, and on a real server."""
from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.storages import RDBStorage

from mmbignas import ConfigError
from tests.search import worker
from tests.search.server import Server, missing, running_server
from tests.search.tables import accuracy, line_of, tiny_space

STALE = 1.5  # seconds


@pytest.fixture(scope='module')
def server() -> Iterator[Server]:
    if missing():
        pytest.skip(missing())
    with running_server() as own:
        yield own


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['search.db', 'search.journal', 'server'])
def test_no_subnet_twice_and_none_lost(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    """Three machines: one is killed, one evaluates a subnet for longer than a dead one would be silent."""
    storage = request.getfixturevalue('server').url if kind == 'server' else tmp_path / kind
    study = worker.open_study(storage, stale_after=STALE)
    machines = [('early', -7200., None, None), ('late', 7200., None, 3), ('killed', 1800., 4, None)]
    processes = []
    for name, shift, kill_at, slow_at in machines:
        processes.append(worker.Process(target=worker.work_elsewhere, args=(
            storage, tmp_path / name, name, shift, STALE, kill_at, slow_at)))
        processes[-1].start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, -signal.SIGKILL]
    evaluated = Counter(int(line) for name, *_ in machines for line in (tmp_path / name).read_text().split())
    assert evaluated == Counter(range(tiny_space().size))  # each once
    lines = study.lines()
    assert sorted(line['number'] for line in lines) == list(range(tiny_space().size))
    assert all(line['metrics']['accuracy'] == accuracy(line['number']) for line in lines)
    assert study.counts() == dict(finished=36, running=0, failed=study.counts()['failed'])
    owners = Counter(trial.user_attrs['owner'].split(':')[0] for trial in study.study.trials)
    assert set(owners) == {name for name, *_ in machines}


def test_a_server_that_is_restarted(server: Server) -> None:
    study = worker.open_study(server.url, name='restarted')
    assert isinstance(study.study._storage._backend, RDBStorage)
    first = study.ask()
    server.stop()
    with pytest.raises(ConfigError, match="postgresql://.*study 'restarted': cannot be read or written .*goes on"):
        study.tell(first, line_of(study, first))
    server.start()
    assert study.tell(first, line_of(study, first))
    assert [line['number'] for line in worker.open_study(server.url, name='restarted').lines()] == [first.number]
