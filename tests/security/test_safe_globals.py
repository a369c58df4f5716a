"""MMEngine's checkpoints load with weights-only on; what could do harm is refused."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader

import mmbignas  # noqa: F401  (its import is what is tested)


class Call:
    """Pickled as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.fixture
def message_hub():
    hub = MessageHub('test_safe_load')
    hub.update_scalar('train/loss', 1.5)
    hub.update_scalar('train/loss', np.float64(0.5))
    hub.update_info('best_score', np.float32(0.25))
    hub.update_info('classes', np.arange(3))
    return hub.state_dict()


def test_message_hub_loads(tmp_path, message_hub):
    torch.save({'message_hub': message_hub}, tmp_path / 'x.pth')
    loaded = torch.load(tmp_path / 'x.pth', weights_only=True)['message_hub']
    assert isinstance(loaded['log_scalars']['train/loss'], HistoryBuffer)
    assert loaded['log_scalars']['train/loss'].statistics('mean') == 1
    assert loaded['runtime_info']['best_score'] == 0.25
    assert loaded['runtime_info']['classes'].tolist() == [0, 1, 2]


def test_file_of_the_other_numpy_loads(tmp_path, message_hub):
    torch.save(message_hub, tmp_path / 'x.pth')
    here, other = b'numpy._core.multiarray', b'numpy.core.multiarray'
    if int(np.__version__.split('.')[0]) < 2:
        here, other = other, here
    with zipfile.ZipFile(tmp_path / 'x.pth') as old, zipfile.ZipFile(tmp_path / 'y.pth', 'w') as new:
        assert any(here in old.read(name) for name in old.namelist())
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(here, other))
    loaded = torch.load(tmp_path / 'y.pth', weights_only=True)
    assert loaded['runtime_info']['best_score'] == 0.25


@pytest.mark.parametrize(
    ('harmful', 'message'),
    [
        (Call(getattr, HistoryBuffer, '__init__'), 'not safe to load'),
        (Call(getattr, HistoryBuffer, 'register_statistics'), 'not safe to load'),
        (Call(getattr, torch.Tensor, 'mean'), 'not safe to load'),
        (Call(getattr, 'text', 'format'), 'not safe to load'),
        (Call(eval, '1 + 1'), 'Unsupported global: GLOBAL eval'),
    ],
)
def test_anything_else_is_refused(tmp_path, harmful, message):
    torch.save(harmful, tmp_path / 'x.pth')
    with pytest.raises(pickle.UnpicklingError, match=message):
        torch.load(tmp_path / 'x.pth', weights_only=True)


@pytest.mark.parametrize('map_location', [None, 'cpu'])
def test_mmengine_does_not_run_what_is_in_a_checkpoint(tmp_path, map_location):
    harm = tmp_path / 'harm'
    torch.save(dict(state_dict={}, meta=Call(open, str(harm), 'w')), tmp_path / 'x.pth')
    with pytest.raises(pickle.UnpicklingError, match='Unsupported global'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'), map_location, logger='silent')
    assert not harm.exists()


def test_mmengine_loads_its_message_hub(tmp_path, message_hub):
    torch.save(dict(state_dict={}, message_hub=message_hub), tmp_path / 'x.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'), 'cpu', logger='silent')
    assert loaded['message_hub']['log_scalars']['train/loss'].statistics('mean') == 1


def test_raw_getattr_is_not_allowed():
    assert getattr not in torch.serialization.get_safe_globals()
