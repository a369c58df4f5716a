"""A checkpoint with a digest is what was written, to the last bit, or it does not load."""
import hashlib
import io
import random

import pytest
import torch
from mmengine.fileio import get_file_backend
from mmengine.runner import CheckpointLoader, save_checkpoint

from mmbignas.errors import ConfigError
from mmbignas.train.resume.checkpoint_files import BACKEND, what_is_broken
from mmbignas.utils.sealed_files import is_as_written, sealed

FLIPS = 10_000
STATE = dict(weight=torch.arange(12.).reshape(3, 4), bias=torch.tensor([1, -2]))


@pytest.fixture
def path(tmp_path):
    save_checkpoint(dict(state_dict=dict(STATE), meta=dict(epoch=3)), str(tmp_path / 'epoch_3.pth'),
                    backend_args=dict(backend=BACKEND))
    return tmp_path / 'epoch_3.pth'


def is_same(content):
    return (content.keys() == {'state_dict', 'meta'} and content['meta'] == dict(epoch=3)
            and content['state_dict'].keys() == STATE.keys()
            and all(torch.equal(own, STATE[name]) and own.dtype == STATE[name].dtype
                    for name, own in content['state_dict'].items()))


def load(path):
    return CheckpointLoader.load_checkpoint(str(path), 'cpu', logger='silent')


def test_the_digest_is_of_all_bytes_before_it(path):
    content = path.read_bytes()
    assert content[-64:].decode() == hashlib.sha256(content[:-64]).hexdigest()
    assert is_as_written(path) is True
    assert what_is_broken(path) is None


@pytest.mark.parametrize('options', [{}, dict(mmap=True), dict(weights_only=False)])
def test_torch_alone_loads_it(path, options):
    assert is_same(torch.load(path, **options))
    assert is_same(load(path))


def test_saved_again_it_has_no_digest(path):
    """As after MMDetection's ``publish_model.py``, or any other change that was meant."""
    content = torch.load(path)
    content['state_dict']['bias'] = torch.zeros(1)
    torch.save(content, path)
    assert is_as_written(path) is None
    assert load(path)['state_dict']['bias'].tolist() == [0]


def test_other_files_stay_as_they_are(tmp_path):
    for content in (b'', b'text', b'PK\5\6' + b'\1' * 18):
        get_file_backend(backend_args=dict(backend=BACKEND)).put(content, str(tmp_path / 'x'))
        assert (tmp_path / 'x').read_bytes() == content
        assert is_as_written(tmp_path / 'x') is None


def test_no_damage_loads_other_weights(path):
    """Bits and bytes at random places, and all bytes of the seal; each is noticed, or changes nothing."""
    whole, rng = path.read_bytes(), random.Random(0)
    tail = [(place, 1 << rng.randrange(8)) for place in range(len(whole) - 102, len(whole))]
    flips = [(rng.randrange(len(whole)), rng.choice((1 << rng.randrange(8), rng.randrange(1, 256))))
             for _ in range(FLIPS - len(tail))]
    noticed = 0
    with path.open('rb+') as file:
        for place, mask in tail + flips:
            file.seek(place)
            file.write(bytes([whole[place] ^ mask]))
            file.flush()
            try:
                assert is_same(load(path)), (place, mask)
            except ConfigError as error:
                assert str(error).startswith(f'{path}: ')
                noticed += 1
            file.seek(place)
            file.write(whole[place:place + 1])
    assert noticed == FLIPS


@pytest.mark.parametrize('length', [0, 10, 21, 22, 100, 500, -1, -30, -64, -65, -102, -103])
def test_a_part_of_a_file_does_not_load(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ConfigError, match='epoch_3.pth: '):
        load(path)
    assert 'truncated or damaged' in what_is_broken(path)


@pytest.mark.parametrize('place', ['weights', 'directory', 'pickle'])
def test_without_a_digest_a_resume_compares_the_checksums(tmp_path, place):
    """As for checkpoints of other programs; whoever only loads one has nothing to compare."""
    buffer = io.BytesIO()
    torch.save(dict(state_dict=STATE), buffer)
    content = bytearray(buffer.getvalue())
    found = dict(weights=content.find(STATE['weight'].numpy().tobytes()) + 6, directory=content.rfind(b'PK\1\2') + 44,
                 pickle=content.find(b'state_dict'))[place]
    content[found] ^= 1
    (tmp_path / 'x.pth').write_bytes(content)
    assert 'damaged' in what_is_broken(tmp_path / 'x.pth')


def test_no_damage_ends_a_resume_without_a_word(tmp_path):
    """Without a digest too, where zipfile and torch raise a dozen kinds of errors, most of them in what is between."""
    buffer, rng = io.BytesIO(), random.Random(0)
    torch.save(dict(state_dict=STATE), buffer)
    whole, path = buffer.getvalue(), tmp_path / 'x.pth'
    places = [rng.randrange(len(whole)) for _ in range(100)]
    places += [rng.randrange(whole.find(b'PK\1\2'), len(whole)) for _ in range(300)]
    found = []
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        found.append(what_is_broken(path))
    assert len({problem for problem in found if problem}) > 10
    assert all(problem is None or '\n' not in problem for problem in found)


def test_pieces_are_no_copies():
    """A checkpoint may have as many bytes as the memory is large."""
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    content = buffer.getvalue()
    first, *_ = sealed(content)
    assert isinstance(first, memoryview) and first.obj is content
