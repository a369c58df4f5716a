"""Files of plain data make nothing but plain data."""
import pytest

from mmbignas.errors import ConfigError
from mmbignas.evaluation.ledger import Ledger
from mmbignas.latency.table import LatencyTable
from mmbignas.space import ModuleSpace, SearchSpace, load_subnet

SPACE = SearchSpace({'backbone': ModuleSpace(dict(depth=dict(space=dict(min=[1], max=[2], stride=1))), num_stages=1,
                                             key='backbone')})
CALLS = ['!!python/object/apply:os.mkdir [{0}]', '!!python/object/new:os.mkdir [{0}]', '!!python/name:os.mkdir',
         '!!python/module:os', 'backbone: !!python/object/apply:os.mkdir [{0}]']


@pytest.mark.parametrize('text', CALLS)
@pytest.mark.parametrize('suffix', ['yml', 'json'])
def test_a_subnet_file_calls_nothing(tmp_path, text, suffix):
    path = tmp_path / f'x.{suffix}'
    path.write_text(text.format(tmp_path / 'harm'))
    with pytest.raises(ConfigError):
        load_subnet(path, SPACE)
    assert not (tmp_path / 'harm').exists()


@pytest.mark.parametrize('read', [lambda path: Ledger(path, {'weights': 'x'}), LatencyTable.load])
def test_pickles_are_no_json(tmp_path, read):
    path = tmp_path / 'x.json'
    path.write_bytes(b"cos\nmkdir\n(V" + str(tmp_path / 'harm').encode() + b"\ntR.")
    with pytest.raises(ConfigError):
        read(path)
    assert not (tmp_path / 'harm').exists()
