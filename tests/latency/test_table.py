"""The table in its file."""
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mmbignas import ConfigError
from mmbignas.latency.table import LatencyTable, LinearFit

IDENTITY = dict(model='RetinaNet', image_sizes=((64, 64), ), threads=1, versions=dict(torch='2'))


def filled(path: Path) -> LatencyTable:
    table = LatencyTable(path, IDENTITY)
    table.blocks.update({'a (3,)': 'x', 'b (3,)': 'x', 'c (3,)': 'y'})
    table.times.update(x=[2., 1., 3.], y=[5.])
    table.networks['17'] = [9., 8.]
    table.fit = LinearFit(0.5, 1.25, 2.5, ['17'], ['18'])
    table.save()
    return table


def test_comes_back_from_its_file(tmp_path: Path) -> None:
    filled(tmp_path / 'table.json')
    for table in (LatencyTable.load(tmp_path / 'table.json'), LatencyTable.resume(tmp_path / 'table.json', IDENTITY)):
        assert (table.block('a (3,)'), table.block('b (3,)'), table.block('c (3,)')) == (1., 1., 5.)  # quietest round
        assert table.network('17') == 8.
        assert (table.rounds_of_block('a (3,)'), table.rounds_of_block('d')) == (3, 0)
        assert table.fit is not None
        assert table.fit(2.) == 3.
        assert (table.fit.error, table.fit.fitted, table.fit.held_out) == (2.5, ['17'], ['18'])
    assert [path.name for path in tmp_path.iterdir()] == ['table.json']


def test_an_unknown_block_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'table.json: has no block d \(1,\)'):
        filled(tmp_path / 'table.json').block('d (1,)')


@pytest.mark.parametrize(('change', 'message'), [
    (dict(threads=2), 'was measured with threads 1, now it is 2'),
    (dict(image_sizes=[[64, 64], [96, 96]]), 'image_sizes [[64, 64]], now it is [[64, 64], [96, 96]]'),
    (dict(versions=dict(torch='3')), "versions {'torch': '2'}, now it is {'torch': '3'}"),
    (dict(batch_size=1), 'batch_size None, now it is 1'),
])
def test_a_table_of_something_else_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    before = filled(tmp_path / 'table.json').path.read_text()
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        LatencyTable.resume(tmp_path / 'table.json', {**IDENTITY, **change})
    assert 'table.json' in str(error.value)
    assert (tmp_path / 'table.json').read_text() == before


def damage(content: dict, section: str, value: object) -> str:
    return json.dumps({**content, section: value})


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'table.json'
    filled(path)
    text = path.read_text()
    content = json.loads(text)
    texts = [text[:length] for length in range(0, len(text) - 2, 7)]
    texts += [
        '[]', '{}', damage(content, 'extra', 1), damage(content, 'times', []), damage(content, 'fit', dict(slope=1)),
        damage(content, 'times', dict(x=[], y=[1.])), damage(content, 'times', dict(x=['1'], y=[1.])),
        damage(content, 'times', dict(x=[1.])), damage(content, 'networks', {'17': [-1.]}),
        damage(content, 'networks', {'17': 1.}), damage(content, 'blocks', None), damage(content, 'fit', 3),
        damage(content, 'times', dict(x=[float('inf')], y=[1.])), damage(content, 'networks', {'17': [float('nan')]}),
        damage(content, 'blocks', {'a': ['x']}),
        *(damage(content, 'fit', {**content['fit'], **change}) for change in (
            dict(slope='1'), dict(error=-1.), dict(intercept=float('inf')), dict(fitted='17'), dict(held_out=[[1]])))]
    for broken in texts:
        path.write_text(broken)
        for read in (LatencyTable.load, lambda path: LatencyTable.resume(path, IDENTITY)):
            with pytest.raises(ConfigError, match='table.json: is (damaged, or no latency table|not valid JSON)'):
                read(path)
        assert path.read_text() == broken
    path.write_text(text)
    LatencyTable.load(path)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='missing.json: cannot be read'):
        LatencyTable.load(tmp_path / 'missing.json')
    with pytest.raises(ConfigError, match='table.json: cannot be written'):
        LatencyTable(tmp_path / 'no' / 'table.json', IDENTITY).save()
    (tmp_path / 'folder').mkdir()
    with pytest.raises(ConfigError, match='folder: cannot be'):
        LatencyTable.resume(tmp_path / 'folder', IDENTITY)
