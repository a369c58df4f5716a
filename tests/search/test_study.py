"""What a study keeps and refuses."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage

from mmbignas import ConfigError, DependencyError
from mmbignas.search import SubnetStudy, open_storage
from tests.search.tables import accuracy, costs_of, line_of, tiny_space

SPACE = tiny_space()
COSTS = costs_of(SPACE)


def open_study(storage: Any = None, objectives: Any = ('accuracy', 'macs'), costs: Any = COSTS, **settings: Any
               ) -> SubnetStudy:
    return SubnetStudy(SPACE, costs, objectives, InMemoryStorage() if storage is None else storage, seed=0,
                       **settings)


@pytest.mark.parametrize('name', ['a {b} c.db', 'search.journal', 'search.log'])
def test_lines_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    study, told = open_study(tmp_path / name), []
    for _ in range(6):
        proposal = study.ask()
        told.append(line_of(study, proposal))
        assert study.tell(proposal, told[-1])
    assert (tmp_path / name).is_file()
    again = open_study(tmp_path / name)
    assert again.lines() == told
    assert [trial.values for trial in again.study.trials] == [
        [accuracy(line['number']), line['macs']] for line in told]  # every digit
    assert [trial.user_attrs['subnet'] for trial in again.study.trials] == [str(line['number']) for line in told]


def test_objectives() -> None:
    study = open_study(objectives=['box', 'latency_ms', 'params', 'mask'],
                       costs=lambda subnet: dict(**COSTS(subnet), latency_ms=1.5))
    assert [direction.name for direction in study.study.directions] == ['MAXIMIZE', 'MINIMIZE', 'MINIMIZE', 'MAXIMIZE']
    for metrics, expected in ((dict(box=0.5, mask=0.25), [0.5, 0.25]), ({}, [0, 0]), (dict(box=None), [0, 0]),
                              (dict(box=float('nan'), mask=-1.), [0, -1])):
        proposal = study.ask()
        assert study.tell(proposal, dict(**proposal.costs, metrics=metrics))
        values = study.study.trials[-1].values
        assert [values[0], values[3]] == expected
        assert values[1:3] == [1.5, proposal.costs['params']]


@pytest.mark.parametrize('objectives, message', [
    ([], 'objectives: [] is not allowed; allowed: a list of different names, of metrics and of macs, params'),
    ('macs', "objectives: 'macs' is not allowed"), (['macs', 'macs'], 'a list of different names'),
    ([1], 'objectives: [1] is not allowed'), (['x', 'latency_ms'], 'objectives: latency_ms is not known here')])
def test_objectives_that_are_refused(objectives: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        open_study(objectives=objectives)


def test_another_study_is_refused(tmp_path: Path) -> None:
    identity = dict(supernet='abc', data='def', evaluation=dict(images=(1, 2)))
    open_study(tmp_path / 'search.db', identity=identity)
    open_study(tmp_path / 'search.db', identity=identity)
    for other, differ in ((dict(identity=identity, objectives=['accuracy', 'params']), 'objectives'),
                          (dict(identity={**identity, 'data': 'x'}), 'identity.data'),
                          (dict(identity=dict(supernet='abc', extra=1)),
                           'identity.data, identity.evaluation, identity.extra'),
                          (dict(identity=identity, constraints=dict(macs='1G')), 'constraints')):
        with pytest.raises(ConfigError, match=re.escape(f"the study 'subnets' is another one, its {differ} differ")):
            open_study(tmp_path / 'search.db', **other)
    open_study(tmp_path / 'search.db', name='other')  # beside it


def test_given_back(tmp_path: Path) -> None:
    study = open_study()
    first, second = study.ask(), study.ask()
    study.fail(first)
    again = study.ask()
    assert (again.number, again.subnet) == (first.number, first.subnet)
    assert study.counts() == dict(finished=0, running=2, failed=1)
    assert study.tell(second, line_of(study, second))
    assert study.tell(again, line_of(study, again))
    assert study.tell(again, line_of(study, again))  # twice does no harm
    assert study.ask().number not in (first.number, second.number)
    assert [line['number'] for line in study.lines()] == [first.number, second.number][::-1]


def test_the_log_is_quiet(capfd: pytest.CaptureFixture) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    study = open_study()
    proposal = study.ask()
    study.tell(proposal, line_of(study, proposal))
    assert capfd.readouterr().err == ''


def test_storages(tmp_path: Path) -> None:
    assert isinstance(open_storage(tmp_path / 'a.journal'), JournalStorage)
    assert isinstance(open_storage(str(tmp_path / 'new' / 'a.db')), RDBStorage)
    assert isinstance(open_storage(f'sqlite:///{tmp_path}/b.db'), RDBStorage)
    storage = InMemoryStorage()
    assert open_storage(storage) is storage
    for wrong, message in (('nothing://x', 'storage: nothing://x'), (tmp_path, f'storage: {tmp_path} cannot be opened'),
                           ('sqlite:////proc/nowhere/a.db', 'cannot be opened'), ('/proc/x/a.log', 'cannot be opened')):
        with pytest.raises(ConfigError, match=re.escape(message)):
            open_storage(wrong)
    with pytest.raises(DependencyError, match='storage: mysql://root@nowhere/x needs a package'):
        open_storage('mysql://root@nowhere/x')


def test_a_single_subnet() -> None:
    costs = [COSTS(subnet)['macs'] for subnet in SPACE.traverse()]
    study = open_study(constraints=dict(macs=min(costs)))
    proposal = study.ask()
    assert proposal.costs['macs'] == min(costs)
    assert study.ask() is None  # while it is running
    study.fail(proposal)
    assert study.ask().number == proposal.number
