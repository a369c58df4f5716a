"""Reading and loading checkpoints: what is accepted, and how the rest is refused."""
from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn

from mmbignas import ConfigError
from mmbignas.supernet import file_hash, load_weights, read_checkpoint
from tests.small_models import big_retina_head, build, element, retinanet, scramble, tower


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize('wrap', [
    lambda state: state,
    lambda state: dict(state_dict=state, meta=dict(epoch=3), optimizer=dict(state={}, param_groups=[])),
    lambda state: dict(state_dict={f'module.{name}': value for name, value in state.items()}),
])
def test_what_is_read(tmp_path: Path, wrap: Any) -> None:
    first, second = network(), network()
    checkpoint = read_checkpoint(saved(tmp_path / 'x.pth', wrap(first.state_dict())))
    load_weights(second, checkpoint)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert checkpoint.meta in (dict(epoch=3), {})


def test_averaged_weights(tmp_path: Path) -> None:
    """As MMEngine's EMAHook leaves them: the averaged weights under state_dict, the trained ones in the other place."""
    trained, averaged = network(), network()
    ema = ExponentialMovingAverage(trained)
    ema_state = ema.state_dict()
    for name, value in trained.state_dict().items():
        ema_state[f'module.{name}'] = value
    path = saved(tmp_path / 'x.pth', dict(state_dict=averaged.state_dict(), ema_state_dict=ema_state))
    for weights, expected in ((None, averaged), ('ema', averaged), ('training', trained)):
        model = network()
        load_weights(model, read_checkpoint(path, weights))
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in expected.state_dict().items())


def test_averaged_weights_that_are_not_there(tmp_path: Path) -> None:
    path = saved(tmp_path / 'x.pth', dict(state_dict=network().state_dict()))
    for weights in ('ema', 'training'):
        with pytest.raises(ConfigError, match=f"weights must be None for .*x.pth.*EMAHook.*, got '{weights}'"):
            read_checkpoint(path, weights)
    with pytest.raises(ConfigError, match="weights must be one of ema, training, or None, got 'mean'"):
        read_checkpoint(path, 'mean')


@pytest.mark.parametrize('share', [0., 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path / 'x.pth', dict(state_dict=network().state_dict()))
    content = path.read_bytes()
    path.write_bytes(content[:int(share * len(content))])
    with pytest.raises(ConfigError, match='x.pth: cannot be read as a checkpoint, it may be truncated'):
        read_checkpoint(path)


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='checkpoint not found: missing.pth'):
        read_checkpoint('missing.pth')
    with pytest.raises(ConfigError, match='checkpoint not found'):
        read_checkpoint(tmp_path)
    text = tmp_path / 'text.pth'
    text.write_text('weights')
    with pytest.raises(ConfigError, match='text.pth: cannot be read'):
        read_checkpoint(text)
    for content in ([torch.zeros(2)], dict(meta=dict(epoch=1)), dict(state_dict={}), dict(state_dict=dict(a=1)),
                    dict(state_dict={1: torch.zeros(2)})):
        with pytest.raises(ConfigError, match='holds no weights'):
            read_checkpoint(saved(tmp_path / 'y.pth', content))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='cannot be read'):
        read_checkpoint(saved(tmp_path / 'x.pth', dict(state_dict=network().state_dict(), extra=Path('x'))))


def test_another_architecture(tmp_path: Path) -> None:
    model = scramble(build(retinanet()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = build(retinanet(head=big_retina_head(num_classes=5, cls_tower=tower(depth=element([1], [2], 1)))))
    with pytest.raises(ConfigError) as caught:
        load_weights(model, read_checkpoint(saved(tmp_path / 'x.pth', other.state_dict())))
    message = str(caught.value)
    assert 'x.pth: is of another architecture' in message
    lacking = [name for name in before if name not in other.state_dict()]
    assert f'{len(lacking)} lacking: {lacking[0]}, {lacking[1]}, {lacking[2]}, ...;' in message
    assert lacking[3] not in message
    assert 'bbox_head.retina_cls.weight ((10, 24, 3, 3) instead of (6, 24, 3, 3))' in message
    assert 'not in the model' not in message
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ConfigError, match='not in the model: bbox_head.cls_tower.2'):
        load_weights(other, read_checkpoint(saved(tmp_path / 'y.pth', before)))


def test_hash(tmp_path: Path) -> None:
    path = tmp_path / 'x'
    for content in (b'', b'abc', bytes(range(256)) * 9000):
        path.write_bytes(content)
        assert file_hash(path) == hashlib.sha256(content).hexdigest()
