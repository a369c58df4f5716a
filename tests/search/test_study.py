"""What a study keeps and refuses."""
from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage

from mmbignas import ConfigError, DependencyError
from mmbignas.search import SubnetStudy, open_storage
from mmbignas.search.storage import dashboard_address
from tests.search.tables import accuracy, costs_of, line_of, tiny_space
from tests.search.worker import dead_owner

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
    for metrics, expected in ((dict(box=0.5, mask=0.25), [0.5, 0.25]), ({}, [0, 0]), (dict(mask=-1.), [0, -1])):
        proposal = study.ask()
        # What a line says of costs does not count.
        assert study.tell(proposal, dict(macs=-5, params='x', metrics=metrics))
        values = study.study.trials[-1].values
        assert [values[0], values[3]] == expected
        assert values[1:3] == [1.5, proposal.costs['params']]


@pytest.mark.parametrize('value', [None, float('nan'), float('inf'), 10**400, 'high'])
def test_an_objective_that_is_no_number_is_no_result(value: Any) -> None:
    """Nor worth 0, which would be better than any negative metric."""
    study = open_study()
    proposal = study.ask()
    assert not study.tell(proposal, dict(metrics=dict(accuracy=value)))
    assert study.counts() == dict(finished=0, running=0, failed=1)
    assert study.ask().number == proposal.number


@pytest.mark.parametrize('objectives, message', [
    ([], 'objectives must be a non-empty list of different names of metrics and of macs, params, got []'),
    ('macs', "macs, params, got 'macs'"), (['macs', 'macs'], "macs, params, got ['macs', 'macs']"),
    ([1], 'macs, params, got [1]'), (['x', 'latency_ms'], "of macs, params, got ['x', 'latency_ms']")])
def test_objectives_that_are_refused(objectives: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        open_study(objectives=objectives)


def test_another_study_is_refused(tmp_path: Path) -> None:
    identity = dict(supernet='abc', data='def', evaluation=dict(images=(1, 2)))
    open_study(tmp_path / 'search.db', identity=identity)
    open_study(tmp_path / 'search.db', identity=identity)
    for other, differ in ((dict(identity=identity, objectives=['accuracy', 'params']), 'objectives'),
                          (dict(identity={**identity, 'data': 'x'}), "data ('def' there, 'x' here)"),
                          (dict(identity=dict(supernet='abc', extra=1)),
                           'extra (nothing about it there), data (nothing about it here), evaluation (nothing about it '
                           'here)'),
                          (dict(identity=identity, constraints=dict(macs='1G')), 'constraints')):
        with pytest.raises(ConfigError, match=re.escape(f"'subnets' is another one, which differs in {differ};")):
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


def test_a_subnet_that_always_fails_is_left_out(tmp_path: Path) -> None:
    study = open_study(tmp_path / 'search.db')
    broken = study.ask()
    study.fail(broken)
    for _ in range(3):  # it comes first until then
        again = study.ask()
        assert again.number == broken.number
        study._set(again, 'owner', dead_owner())  # as if its process had died, which is not the subnet's fault
    again = study.ask()
    study.fail(again)
    message = f'the evaluation of subnet {broken.number} failed 2 times; the search leaves it out'
    with pytest.warns(UserWarning, match=message):
        numbers = [study.ask().number]
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # it is said once
        while (proposal := study.ask()) is not None:
            numbers.append(proposal.number)
    assert sorted([*numbers, broken.number]) == list(range(SPACE.size))
    with pytest.warns(UserWarning, match=message):  # and after a restart
        assert open_study(tmp_path / 'search.db').ask() is None


@pytest.mark.parametrize('settings, message', [
    (dict(stale_after=0), 'stale_after must be a number > 0, got 0'),
    (dict(name=5), 'study_name must be a string that is not empty, got 5'),
    (dict(storage=['a']), "or one of Optuna's storages, got ['a']")])
def test_wrong_types_are_refused_first(settings: Any, message: str) -> None:
    def costs(subnet: Any) -> Any:
        raise AssertionError('nothing may be done before')

    with pytest.raises(ConfigError, match=re.escape(message)):
        open_study(costs=costs, **settings)


@pytest.mark.parametrize('storage', [5, ''])
def test_what_is_no_storage(storage: Any) -> None:
    with pytest.raises(ConfigError, match=f'storage must be a file, a URL .*, got {storage!r}'):
        open_storage(storage)


@pytest.mark.parametrize('torn', [b'{"op_code":5,"worker_id":"ab', b'\x00', b'{"op_code":99}', b'x' * 100_000])
def test_a_torn_line_of_a_journal(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / 'search.journal'
    study = open_study(path)
    proposal = study.ask()
    line = line_of(study, proposal)
    assert study.tell(proposal, line)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    again = open_study(path)  # after a power cut
    assert again.lines() == [line]
    assert path.read_bytes().startswith(whole) and torn not in path.read_bytes()
    with path.open('ab') as file:
        file.write(torn)  # a full disk, of another process
    for one in (study, again):
        proposal = one.ask()
        assert one.tell(proposal, line_of(one, proposal))
    assert len(study.lines()) == len(again.lines()) == len(open_study(path).lines()) == 3
    assert all(json.loads(text) for text in path.read_text().splitlines())


def test_a_journal_that_is_only_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / 'search.journal').write_bytes(b'{"op_')
    assert open_study(tmp_path / 'search.journal').ask() is not None
    assert not (tmp_path / 'search.journal.lock').exists()


@pytest.mark.parametrize('directions', [['minimize'], ['minimize', 'maximize'], ['maximize'] * 3])
@pytest.mark.parametrize('trials', [0, 1])
def test_a_study_with_other_directions(directions: list[Any], trials: int) -> None:
    storage = InMemoryStorage()
    theirs = optuna.create_study(storage=storage, study_name='subnets', directions=directions)
    for _ in range(trials):
        theirs.tell(theirs.ask(), [0.] * len(directions))
    message = 'has trials that are not' if trials else 'is another one, which differs in directions'
    with pytest.raises(ConfigError, match=f"storage: the study 'subnets' {message}"):
        open_study(storage)
    assert theirs.user_attrs == {} and len(theirs.trials) == trials  # nothing was done to it


def test_a_study_that_somebody_else_made() -> None:
    storage = InMemoryStorage()
    theirs = optuna.create_study(storage=storage, study_name='subnets', directions=['maximize', 'minimize'])
    study = open_study(storage)  # it is empty: taken over
    assert study.study._study_id == theirs._study_id and study.ask() is not None
    open_study(storage)
    theirs = optuna.create_study(storage=storage, study_name='own', directions=['maximize', 'minimize'])
    theirs.tell(theirs.ask(), [0, 0])
    with pytest.raises(ConfigError, match="the study 'own' has trials that are not those of a search for subnets"):
        open_study(storage, name='own')


def test_storages_as_the_dashboard_takes_them(tmp_path: Path) -> None:
    assert dashboard_address(tmp_path / 'own.db') == f'sqlite:///{tmp_path}/own.db'
    assert dashboard_address(f'{tmp_path}/own.journal') == f'{tmp_path}/own.journal'
    assert dashboard_address('postgresql://me:secret@host:5432/name') == 'postgresql://me:***@host:5432/name'
    assert dashboard_address('postgresql://me@host/name') == 'postgresql://me@host/name'


# -- damage -----------------------------------------------------------------------------------------------------------


def finished_study(storage: Any, count: int = 3) -> SubnetStudy:
    study = open_study(storage)
    for _ in range(count):
        proposal = study.ask()
        study.tell(proposal, line_of(study, proposal))
    return study


@pytest.mark.parametrize('damage', [
    b'no JSON\n', b'\x00' * 600 + b'\n', b'\n', b'[1]\n', b'5\n', b'{"op_code": 99}\n', b'{"op_code": 4}\n',
    b'\xff\xfe\n', b'{"op_code": 4, "study_id": [1], "worker_id": "x"}\n', b'{}\n'], ids=map(str, range(10)))
def test_a_damaged_line_of_a_journal_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / 'search.journal'
    study = finished_study(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b''.join([*lines[:4], damage, *lines[4:]]))
    with pytest.raises(ConfigError, match=re.escape(f'storage: {path}: line 5 is damaged, or not of a journal of')):
        open_study(path)
    with path.open('ab') as file:  # while another process works on it
        file.write(damage)
    path.write_bytes(b''.join([*lines, damage, *lines[-1:]]))
    with pytest.raises(ConfigError, match=re.escape(f'{path}: line {len(lines) + 1} is damaged')):
        study.ask()


@pytest.mark.parametrize(('attribute', 'value'), [
    ('subnet', 'x'), ('subnet', 7), ('subnet', '99'), ('subnet', '9' * 5000), ('subnet', None), ('owner', 5),
    ('owner', 'a:b'), ('line', 5), ('line', dict(metrics=[1])), ('line', dict(number=3))])
def test_attributes_that_no_search_has_written(attribute: str, value: Any) -> None:
    storage = InMemoryStorage()
    study = finished_study(storage)
    proposal = study.ask()
    study._set(proposal, attribute, value)
    message = re.escape("storage: InMemoryStorage, study 'subnets': trial 3 is not of a search in this space, or "
                        f'damaged: its {attribute} is ')
    for call in (study.ask, study.counts, study.lines, open_study(storage).ask):
        with pytest.raises(ConfigError, match=message):
            call()


def test_what_follows_from_a_subnet_is_not_read() -> None:
    """Objectives and parameters that somebody else wrote have no effect on what is drawn."""
    storages = InMemoryStorage(), InMemoryStorage()
    first, second = (finished_study(own) for own in storages)
    for trial in storages[1]._studies[0].trials:
        trial.values, trial.params = [-7., -7.], {}
    assert [first.ask().number for _ in range(4)] == [second.ask().number for _ in range(4)]


@pytest.fixture(scope='module')
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('database') / 'search.db'
    finished_study(path)
    return path


@pytest.mark.parametrize('change', [
    'ALTER TABLE studies RENAME COLUMN study_name TO name', 'DROP TABLE trials', 'DROP TABLE trial_user_attributes',
    "UPDATE trial_user_attributes SET value_json = '{'", "UPDATE trials SET state = 'ASLEEP'",
    "UPDATE trial_params SET distribution_json = '{}'", "UPDATE alembic_version SET version_num = 'v99'",
    "UPDATE study_user_attributes SET value_json = '5'", 'DELETE FROM version_info'])
def test_a_database_of_another_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Path, change: str
                                      ) -> None:
    path = Path(shutil.copy(database, tmp_path))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.commit()
    monkeypatch.setattr('mmbignas.search.storage.time.sleep', lambda seconds: None)  # between attempts
    if 'version_info' in change:
        assert len(open_study(path).lines()) == 3  # it is written again
        return
    with pytest.raises(ConfigError, match='^storage: ') as error:
        open_study(path).ask()
    assert '\n' not in str(error.value) and ('search.db' in str(error.value) or "'subnets'" in str(error.value))


@pytest.mark.parametrize('content', [b'', b'x' * 5000, b'SQLite format 3\x00' + b'x' * 5000])
def test_a_file_that_is_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr('mmbignas.search.storage.time.sleep', lambda seconds: None)
    (tmp_path / 'search.db').write_bytes(content)
    if not content:
        assert open_study(tmp_path / 'search.db').ask() is not None  # a new one
        return
    with pytest.raises(ConfigError, match='^storage: .*search.db cannot be opened .*database'):
        open_study(tmp_path / 'search.db')


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'search.journal'
    study = finished_study(path)
    proposal = study.ask()

    def fsync(file: int) -> None:
        os.ftruncate(file, path.stat().st_size - 9)
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', fsync)
        with pytest.raises(ConfigError, match=re.escape(f'storage: {path}') + '.*No space left on device.*goes on'):
            study.tell(proposal, line_of(study, proposal))
    again = open_study(path)
    assert len(again.lines()) == 3
    assert again.tell(proposal, line_of(study, proposal)) and len(again.lines()) == 4


def test_a_full_database(tmp_path: Path, database: Path) -> None:
    path = Path(shutil.copy(database, tmp_path))
    study = open_study(path)
    proposal = study.ask()

    @sqlalchemy.event.listens_for(study.study._storage._backend.engine, 'checkout')
    def limit(connection: Any, *args: Any) -> None:  # SQLite's own: no more pages than there are
        connection.execute(f'PRAGMA max_page_count = {connection.execute("PRAGMA page_count").fetchone()[0]}')

    with pytest.raises(ConfigError, match='search.db.*cannot be read or written .*database or disk is full'):
        study.tell(proposal, dict(line_of(study, proposal), text='x' * 100_000))
    again = open_study(path)
    assert len(again.lines()) == 3
    assert again.tell(proposal, line_of(study, proposal)) and len(again.lines()) == 4
