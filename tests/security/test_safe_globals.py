"""What a checkpoint may name beside weights: real ones load bit for bit, those made to do harm are refused."""
import copy
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader

from mmbignas.errors import ConfigError

RECONSTRUCT, SCALAR = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]


class Call:
    """Pickled as a call, and a state for its result."""

    def __init__(self, function, *args, state=None):
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.call


def loaded(content):
    """What ``torch.load`` makes of it; bytes are a pickle that was written by hand."""
    file = io.BytesIO()
    torch.save(content if not isinstance(content, bytes) else {}, file)
    if isinstance(content, bytes):
        changed = io.BytesIO()
        with zipfile.ZipFile(file) as old, zipfile.ZipFile(changed, 'w') as new:
            for name in old.namelist():
                new.writestr(name, content if name.endswith('data.pkl') else old.read(name))
        file = changed
    file.seek(0)
    return torch.load(file, weights_only=True)


def opcodes(value):
    """Those that leave a value on the stack."""
    return pickle.dumps(value, 2)[2:-1]


@pytest.fixture
def message_hub():
    hub = MessageHub('test_safe_globals')
    hub.update_scalar('train/loss', 1.5)
    hub.update_scalar('train/loss', np.float64(0.5))
    arrays = dict(classes=np.arange(3), palette=np.arange(6, dtype=np.uint8).reshape(2, 3).T, none=np.empty((0, 3)),
                  flags=np.array([True, False]), half=np.float16([1.5, -2]), many=np.linspace(0, 1, 999),
                  score=np.float32(0.25), best=np.bool_(True), count=np.int64(2**40))
    for name, value in arrays.items():
        hub.update_info(name, value)
    return hub.state_dict()


def assert_same_hub(found, expected):
    for name, value in expected['runtime_info'].items():
        own = found['runtime_info'][name]
        assert own.dtype == value.dtype and own.shape == value.shape and own.tobytes() == value.tobytes(), name
        assert pickle.dumps(own) == pickle.dumps(value)
    buffer = found['log_scalars']['train/loss']
    assert type(buffer) is HistoryBuffer
    assert [(own.tolist(), own.dtype.kind) for own in buffer.data] == [([1.5, .5], 'f'), ([1, 1], 'i')]
    assert (buffer.max_length, buffer.statistics('mean'), buffer.current()) == (1000000, 1, .5)


def test_a_message_hub_loads_bit_for_bit(message_hub):
    found = loaded(message_hub)
    assert_same_hub(found, message_hub)
    assert_same_hub(loaded(found), message_hub)
    assert type(copy.deepcopy(found)['runtime_info']['palette']) is np.ndarray
    found['log_scalars']['train/loss'].update(2.5)
    assert found['log_scalars']['train/loss'].max() == 2.5


def test_the_names_of_the_other_numpy(message_hub):
    here, other = b'numpy._core.multiarray', b'numpy.core.multiarray'
    if int(np.__version__.split('.')[0]) < 2:
        here, other = other, here
    content = pickle.dumps(message_hub, 2)
    assert here in content
    assert_same_hub(loaded(content.replace(here, other)), message_hub)


# By the name that a checkpoint has for each allowed global: what could be asked of it.
HARMFUL = {
    'numpy.ndarray': [
        Call(np.ndarray, (4, ), np.dtype('O'), b'\1' * 32), Call(np.ndarray, (4, ), 'f8', bytearray(32)),
        Call(np.ndarray, (1 << 40, )), Call(np.ndarray)],
    'numpy.dtype': [
        np.array([object], dtype=object)[:0], np.array(['text']), np.array([b'text']), np.zeros(2, 'f4,O'),
        np.zeros(2, [('a', 'f4')]), np.zeros(2, 'V8'), np.zeros(2, 'M8[s]'), np.zeros(2, 'c8'),
        Call(RECONSTRUCT, np.ndarray, (0, ), b'b', state=(1, (1, ), Call(np.dtype, dict(names=['a'], formats=['O'])), 0,
                                                          b'\1' * 8)),
        Call(RECONSTRUCT, np.ndarray, (0, ), b'b', state=(
            1, (1, ), Call(np.dtype, 'f8', False, True, state=(3, '|O', None, ('a', ), {}, 1 << 40, 8, 63)), 0,
            b'\1' * 8))],
    'numpy._core.multiarray._reconstruct': [
        Call(RECONSTRUCT, torch.Size, (0, ), b'b'), Call(RECONSTRUCT, HistoryBuffer, (0, ), b'b'),
        *(Call(RECONSTRUCT, np.ndarray, (0, ), b'b', state=state) for state in (
            (1, (9, ), np.dtype('f8'), False, b'too short'), (1, (1 << 62, 4), np.dtype('f8'), False, b''),
            (1, (-1, -1), np.dtype('f8'), False, b'12345678'), (1, (1, ), np.dtype('f8'), False, ['text']),
            (1, (1, ), 'O', False, b'12345678'), {'dtype': 'O'}, (1, ), 'text'))],
    'numpy._core.multiarray.scalar': [
        Call(SCALAR, np.dtype('O'), b'\1' * 8), Call(SCALAR, np.dtype('f8'), b'short'), Call(SCALAR, np.dtype('f8')),
        Call(SCALAR, 'O', b'\1' * 8), Call(SCALAR, np.dtype('U4'), b'\1' * 16)],
    'builtins.getattr': [
        Call(getattr, HistoryBuffer, '__init__'), Call(getattr, HistoryBuffer, 'register_statistics'),
        Call(getattr, torch.Tensor, 'mean'), Call(getattr, 'text', 'format')],
    'builtins.bytes': [Call(bytes, 1 << 40), Call(bytes, [1])],
    'mmengine.logging.history_buffer.HistoryBuffer': [
        Call(HistoryBuffer, [1, 2], [1, 1]), Call(HistoryBuffer, ['text'], [1])],
}


@pytest.mark.parametrize(('name', 'index'), [(name, index) for name in HARMFUL for index in range(len(HARMFUL[name]))])
def test_what_could_do_harm_is_refused(name, index):
    with pytest.raises(pickle.UnpicklingError, match='which is not safe to load'):
        loaded(HARMFUL[name][index])


def test_every_allowed_global_is_attacked_above():
    allowed = set(torch._weights_only_unpickler._get_user_allowed_globals())
    assert {name for name in allowed if not name.startswith('torch.') and '.core.' not in name} == set(HARMFUL)


@pytest.mark.parametrize('harmful', [Call(eval, '1 + 1'), Call(np.frombuffer, b'12345678')])
def test_other_names_are_refused(harmful):
    with pytest.raises(pickle.UnpicklingError, match='Unsupported global'):
        loaded(harmful)


def state_of(**changed):
    return {**dict(max_length=5, _log_history=np.array([1., 2.]), _count_history=np.array([1, 1])), **changed}


def built(*states):
    """A buffer that is given these states one after the other, as a pickle."""
    new = b'cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81'
    return b'\x80\2' + new + b''.join(opcodes(state) + b'b' for state in states) + b'.'


def test_a_buffer_writes_nothing_into_its_class():
    """``statistics_methods`` of a state would replace the methods of all buffers of the process."""
    before = dict(HistoryBuffer._statistics_methods)
    found = loaded(built(state_of(statistics_methods={'mean': torch.Size, 'more': 1}, mean=1, more=2)))
    assert HistoryBuffer._statistics_methods == before
    assert found.statistics('mean') == 1.5
    assert sorted(vars(found)) == ['_count_history', '_log_history', 'max_length']


@pytest.mark.parametrize('states', [
    [state_of(), state_of()], ['text'], [{}], [state_of(max_length='5')], [state_of(_log_history=[1., 2.])],
    [state_of(_count_history=np.array([1]))], [state_of(_log_history=np.ones((2, 1)))]])
def test_states_of_no_buffer(states):
    with pytest.raises(pickle.UnpicklingError):
        loaded(built(*states))


def test_an_array_is_filled_once():
    """A second state would free the memory that a tensor may have been made of."""
    array = np.arange(4.)
    with pytest.raises(pickle.UnpicklingError, match='does not fit it'):
        loaded(b'\x80\2' + opcodes(array) + opcodes(array.__reduce__()[2]) + b'b.')


def test_arrays_share_no_memory():
    """Of two arrays with the same large content, one does not change with the other."""
    content = bytes(8 * 400)
    first, second = loaded([Call(RECONSTRUCT, np.ndarray, (0, ), b'b',
                                 state=(1, (400, ), np.dtype('f8'), False, content)) for _ in range(2)])
    first[:] = 1
    assert second.sum() == 0


def test_attributes_of_an_array_are_not_set():
    rebuild = torch._tensor._rebuild_from_type_v2
    state = dict(dtype='O', strides=(1 << 40, ))
    with pytest.raises(pickle.UnpicklingError):
        loaded(Call(rebuild, RECONSTRUCT, np.ndarray, (np.ndarray, (0, ), b'b'), state))
    with pytest.raises(AttributeError, match='copy the array first'):
        loaded(np.arange(4.)).strides = (1 << 40, )


@pytest.mark.parametrize('map_location', [None, 'cpu'])
def test_mmengine_does_not_run_what_is_in_a_checkpoint(tmp_path, map_location):
    harm = tmp_path / 'harm'
    torch.save(dict(state_dict={}, meta=Call(open, str(harm), 'w')), tmp_path / 'x.pth')
    with pytest.raises(ConfigError, match=r'x.pth: cannot be read as a checkpoint \(UnpicklingError: Unsupported glob'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'), map_location, logger='silent')
    assert not harm.exists()


def test_nor_what_was_downloaded(tmp_path, monkeypatch):
    """MMEngine loads files from a network with weights-only loading off; this one has been downloaded before."""
    harm = tmp_path / 'harm'
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    torch.save(dict(state_dict={}, meta=Call(open, str(harm), 'w')), tmp_path / 'checkpoints' / 'x.pth')
    with pytest.raises(ConfigError, match=r'x.pth: cannot be read as a checkpoint \(UnpicklingError: Unsupported glob'):
        CheckpointLoader.load_checkpoint('https://host.invalid/x.pth', 'cpu', logger='silent')
    assert not harm.exists()
    torch.save(dict(state_dict=dict(x=torch.ones(2))), tmp_path / 'checkpoints' / 'y.pth')
    found = CheckpointLoader.load_checkpoint('https://host.invalid/y.pth', 'cpu', logger='silent')
    assert found['state_dict']['x'].tolist() == [1, 1]


def test_mmengine_loads_its_message_hub(tmp_path, message_hub):
    torch.save(dict(state_dict={}, message_hub=message_hub), tmp_path / 'x.pth')
    found = CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'), 'cpu', logger='silent')
    assert_same_hub(found['message_hub'], message_hub)


def test_raw_classes_are_not_allowed():
    allowed = torch.serialization.get_safe_globals()
    assert not {getattr, HistoryBuffer, np.ndarray, np.dtype} & {own if not isinstance(own, tuple) else own[0]
                                                                 for own in allowed}
