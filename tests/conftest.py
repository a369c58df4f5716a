"""What all tests share: one thread, fixed seeds, one set of runs, the order of the files, times on request.

Nothing slow is imported before the tests are collected: with pytest-xdist, the process that hands out the tests
imports none of it.
"""
from __future__ import annotations

import gc
import json
import logging
import os
import random
import resource
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

SERVER = 'MMBIGNAS_TEST_SERVER'  # the folder of the server that processes are forked from, see tests/processes
# Test function -> CPU seconds of all its cases, and the number of cases, as `--seconds` measured them.
SECONDS: dict[str, list[float]] = json.loads(Path(__file__).with_name('seconds.json').read_text())
SLOW = 0.7  # CPU seconds per case, from which a test function is slow without being marked
LEAST = .5  # CPU seconds of all cases, below which a function is not listed
_times: dict[str, list[float]] = defaultdict(lambda: [0., 0])


def _hands_out(config: pytest.Config) -> bool:
    """Whether this is the process of pytest-xdist that runs no tests itself."""
    return not hasattr(config, 'workerinput') and config.getoption('dist', 'no') != 'no'


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--seconds', metavar='FILE', help='write the CPU seconds of the tests to a JSON file')


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, 'workerinput'):
        os.environ[SERVER] = tempfile.mkdtemp(prefix='mmbignas_tests_')
        os.environ[f'{SERVER}_OWNER'] = str(os.getpid())
    if not _hands_out(config):
        _prepare()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, 'workerinput') and SERVER in os.environ:
        shutil.rmtree(os.environ[SERVER], ignore_errors=True)


def _prepare() -> None:
    """One thread, no flood of MMEngine's weight-initialisation log, the same examples of Hypothesis every time."""
    import torch
    from hypothesis import settings
    from mmdet.utils import register_all_modules
    from mmengine.model import BaseModule

    from tests.processes.once import find_out_once
    find_out_once()
    torch.set_num_threads(1)
    register_all_modules()
    BaseModule._dump_init_info = lambda *args, **kwargs: None  # type: ignore[method-assign]
    settings.register_profile('mmbignas', deadline=None, derandomize=True, database=None)
    settings.load_profile('mmbignas')


def _name(item: pytest.Item) -> str:
    """The test function of a case: its file below this folder, and its name."""
    return item.nodeid.removeprefix('tests/').partition('[')[0]


@pytest.hookimpl(tryfirst=True)  # before the marks choose what is run
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow tests; long files first, so that no worker is left alone with one, whole runs behind the others."""
    whole_runs, seconds = defaultdict(lambda: True), defaultdict(float)
    for item in items:
        whole_runs[item.path] &= item.get_closest_marker('slow') is not None
        total, cases = SECONDS.get(_name(item), (0., 1))
        seconds[item.path] += total / cases
        if total > SLOW * cases:
            item.add_marker('slow')
    items.sort(key=lambda item: (whole_runs[item.path], -seconds[item.path], str(item.path)))


def pytest_collection_finish() -> None:
    """Spare the collector of garbage what is imported by now: MMEngine calls it for each data set that it builds."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Count what each test takes, with the processes that it starts."""
    before = _cpu_seconds()
    result = yield
    time_of = _times[_name(item)]
    time_of[0] += _cpu_seconds() - before
    time_of[1] += 1
    return result


def _cpu_seconds() -> float:
    from tests.processes import Process
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime + Process.cpu_seconds


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect what a worker of pytest-xdist has counted."""
    for name, own in getattr(node, 'workeroutput', {}).get('seconds', {}).items():
        _times[name] = [sum(pair) for pair in zip(_times[name], own)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption('seconds')
    if hasattr(session.config, 'workeroutput'):
        session.config.workeroutput['seconds'] = dict(_times)
    elif path:
        listed = sorted((own for own in _times.items() if own[1][0] >= LEAST), key=lambda own: -own[1][0])
        lines = [f'{json.dumps(name)}: [{total:.1f}, {cases}]' for name, (total, cases) in listed]
        Path(path).write_text('{\n' + ',\n'.join(lines) + '\n}\n')


@pytest.fixture(autouse=True)
def scope() -> None:
    """Start every test in MMDetection's scope, and with all logs, whatever was set before it."""
    logging.disable(logging.NOTSET)
    from mmengine.registry import init_default_scope
    init_default_scope('mmdet')


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Start every test from the same random state, whatever ran before it."""
    import numpy as np
    import torch
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (MMDetection draws from the legacy generator)
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns ``shared(name, make)``: a folder that ``make(folder)`` fills once for all workers of pytest-xdist."""
    top = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        top = top.parent

    def folder(name: str, make: Callable[[Path], Any]) -> Path:
        own, done = top / name, top / f'{name}.done'
        with FileLock(top / f'{name}.lock'):
            if not done.exists():
                shutil.rmtree(own, ignore_errors=True)  # of a worker that failed
                own.mkdir()
                make(own)
                done.touch()
        return own

    return folder


@pytest.fixture(scope='session')
def workspace(shared: Callable[..., Path]) -> Path:
    """A folder with the data and the config of whole runs of the tools; the runs go below it."""
    from tests.runs import make_workspace
    return shared('runs', make_workspace)


@pytest.fixture(scope='session')
def whole(workspace: Path, shared: Callable[..., Path]) -> Path:
    """A run of training without interruption, by a real command line."""
    from tests.runs import python
    return shared('whole', lambda folder: python(
        'tools/train.py', workspace / 'config.py', '--work-dir', folder, real=True))


@pytest.fixture(scope='session')
def tested(workspace: Path, whole: Path, shared: Callable[..., Path]) -> list[dict]:
    """What a test of its checkpoint recorded."""
    from tests.runs import python, records_of
    return records_of(shared('tested', lambda folder: python(
        'tools/test.py', workspace / 'config.py', whole / 'epoch_2.pth', '--work-dir', folder)), 'test')
