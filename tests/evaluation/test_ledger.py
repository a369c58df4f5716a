"""What is known of finished subnets survives, and is not mixed up."""
import errno
import os
import random
import re
import signal
import time

import pytest

from mmbignas.errors import ConfigError
from mmbignas.evaluation.ledger import Ledger, only_run
from tests.processes import PIPE, Process

IDENTITY = dict(supernet='a', space='b', data='c')
WRITER = """
import sys
from mmbignas.evaluation.ledger import Ledger
ledger = Ledger(sys.argv[1], dict(supernet='a', space='b', data='c'))
for number in range(int(sys.argv[2]), 10**9, 2):
    ledger.append(dict(number=number, text='x' * (number * 37 % 5000), metrics={}))
    print(number, flush=True)
"""


def test_lines_are_kept_in_order(tmp_path):
    path = tmp_path / 'new' / 'ledger.jsonl'
    ledger = Ledger(path, IDENTITY)
    numbers = [random.Random(seed).randrange(2**70) for seed in range(50)]
    for count, number in enumerate(numbers):
        ledger.append(dict(number=str(number), value=count / 3, metrics={}))
        assert list(ledger.lines()) == numbers[:count + 1]
    again = Ledger(path, IDENTITY).lines()
    assert [again[number]['value'] for number in numbers] == [count / 3 for count in range(50)]
    assert len(path.read_text().splitlines()) == 51


@pytest.mark.parametrize('cut', range(1, 30, 3))
def test_a_torn_line_is_passed_over(tmp_path, cut):
    path = tmp_path / 'ledger.jsonl'
    ledger = Ledger(path, IDENTITY)
    for number in range(3):
        ledger.append(dict(number=number, metrics={}, text='x' * 10))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    expected = [0, 1]
    ledger = Ledger(path, IDENTITY)
    assert list(ledger.lines()) == expected
    ledger.append(dict(number=2, text='y', metrics={}))
    # Without its newline alone, the line is complete.
    assert list(ledger.lines()) == list(Ledger(path, IDENTITY).lines()) == [0, 1, 2]
    assert Ledger(path, IDENTITY).lines()[2]['text'] == ('x' * 10 if cut == 1 else 'y')


def test_two_processes_killed_while_they_write(tmp_path):
    """Whatever a process said it had written is there."""
    path = tmp_path / 'ledger.jsonl'
    writers = [Process(['-c', WRITER, path, first], output=PIPE, imported=True) for first in range(2)]
    for writer in writers:
        writer.stdout.readline()
    time.sleep(.5)
    said = set()
    for first, writer in enumerate(writers):
        writer.send_signal(signal.SIGKILL)
        said |= {first, *(int(line) for line in writer.stdout.read().splitlines())}
    lines = Ledger(path, IDENTITY).lines()
    assert len(said) > 10
    assert said <= set(lines) and len(set(lines) - said) <= 2
    for number, line in lines.items():
        assert line['text'] == 'x' * (number * 37 % 5000)


@pytest.mark.parametrize(('change', 'named'), [
    ({'supernet': 'z'}, "supernet ('a' there, 'z' here)"),
    ({'space': 'z', 'model.mean': [1]}, "space ('b' there, 'z' here), model (nothing about it there)")])
def test_figures_of_something_else_are_refused(tmp_path, change, named):
    path = tmp_path / 'ledger.jsonl'
    Ledger(path, IDENTITY).append(dict(number=3))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=re.escape(f'which differs in {named}; give another folder')):
        Ledger(path, {**IDENTITY, **change})
    assert path.read_bytes() == before


@pytest.mark.parametrize('content', ['', 'x', '[]\n', '{"number": 1}\n', '\xff\xfe'])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / 'ledger.jsonl'
    path.write_bytes(content.encode('latin-1'))
    with pytest.raises(ConfigError, match='ledger.jsonl: is no record of evaluated subnets'):
        Ledger(path, IDENTITY)
    with pytest.raises(ConfigError, match='ledger.jsonl: cannot be read and written'):
        Ledger(path / 'x' / 'ledger.jsonl', IDENTITY)


def test_one_run_at_a_time(tmp_path):
    """Another process is kept away, but a worker of a run that was killed keeps nobody away."""
    path = tmp_path / 'ledger.jsonl'
    code = (f"import os, sys, time\nfrom pathlib import Path\nfrom mmbignas.evaluation.ledger import only_run\n"
            f"with only_run(Path({str(path)!r})):\n"
            "    if os.fork() == 0:\n        time.sleep(60)\n        os._exit(0)\n"
            "    print('there', flush=True)\n    time.sleep(60)")
    run = Process(['-c', code], output=PIPE, imported=True)
    assert run.stdout.readline() == 'there\n'
    with pytest.raises(ConfigError, match='another run writes to it'), only_run(path):
        pass
    run.kill()
    run.wait()
    with only_run(path):
        pass
    os.killpg(run.pid, signal.SIGKILL)


@pytest.mark.parametrize('line', [
    b'{"number": 5}', b'{"number": "x", "metrics": {}}', b'{"metrics": {}}', b'[1]', b'no', b'', b'\x00' * 512,
    b'{"number": 5, "metrics": {"a\xff": 1}}', b'{"number": 5, "metrics": [1]}', b'{"number": true, "metrics": {}}',
    b'{"number": "%s", "metrics": {}}' % (b'9' * 5000), b'[' * 100_000], ids=lambda line: line[:40])
def test_lines_that_are_none_are_passed_over(tmp_path, line):
    """Wherever they stand, also in the part that is read together with the first line."""
    path = tmp_path / 'ledger.jsonl'
    ledger = Ledger(path, IDENTITY)
    path.write_bytes(path.read_bytes() + line + b'\n')
    ledger.append(dict(number=3, metrics={}))
    assert list(ledger.lines()) == list(Ledger(path, IDENTITY).lines()) == [3]


def test_only_usable_lines_count_as_finished(tmp_path):
    path = tmp_path / 'ledger.jsonl'
    first = Ledger(path, IDENTITY)
    first.append(dict(number=4, metrics={}, whole=False))
    first.append(dict(number=4, metrics={}, whole=True))
    assert Ledger(path, IDENTITY, lambda line: line['whole']).lines() == {4: dict(number=4, metrics={}, whole=True)}


@pytest.mark.parametrize('reason', [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_cannot_be_written_to(tmp_path, monkeypatch, reason):
    """One line says which file; what was there stays, and later lines can be read."""
    path = tmp_path / 'ledger.jsonl'
    ledger = Ledger(path, IDENTITY)
    ledger.append(dict(number=1, metrics={}))
    before = path.read_bytes()

    def fsync(file):
        os.ftruncate(file, len(before) + 9)  # as much as there was room for
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', fsync)
        with pytest.raises(ConfigError, match=re.escape(f'{path}: cannot be ') + f'.*written .{os.strerror(reason)}'):
            ledger.append(dict(number=2, metrics={}))
    assert path.read_bytes().startswith(before) and list(ledger.lines()) == [1]
    ledger.append(dict(number=3, metrics={}))
    assert list(ledger.lines()) == list(Ledger(path, IDENTITY).lines()) == [1, 3]
