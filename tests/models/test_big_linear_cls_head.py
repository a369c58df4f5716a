"""BigLinearClsHead: against MMPretrain's head and a head written out by hand; initialisation, refusals."""
from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn
from torch.nn import functional as F

from mmbignas import ConfigError
from mmbignas.ops import DynamicLinear
from mmbignas.supernet import Supernet, subnet_state_dict
from mmbignas.supernet.transfer import sliced
from mmbignas.utils.rules import shown
from tests.models.same_network import check_same_network
from tests.small_classifiers import cls_head, hidden_layers, labelled, one_of, width_up_to
from tests.small_models import build, element, scramble

pytest.importorskip('mmpretrain')

HEADS = {
    'hidden layers': cls_head(width_up_to(24), hidden=hidden_layers()),
    'hidden layers behind features of one width': cls_head(16, hidden=hidden_layers(depth=element([1], [3], 1))),
    'one hidden layer': cls_head(width_up_to(24), hidden=dict(depth=[1], out_channel=one_of([12, 20]))),
    'hidden layers with nothing to choose': cls_head(width_up_to(24), hidden=dict(depth=[2], out_channel=one_of([12]))),
}


@pytest.mark.parametrize('config', HEADS.values(), ids=HEADS)
def test_same_arithmetic(config: dict[str, Any]) -> None:
    head = scramble(build(config))
    supernet, rng = Supernet(head), random.Random(0)
    space = supernet.space
    for subnet in (space.max(), space.min(), *(space.sample(rng) for _ in range(50))):
        supernet.apply(subnet)
        width = 16 if config['in_channels'] == 16 else rng.choice([8, 12, 24])
        plain = MODELS.build({**config, 'in_channels': width, 'hidden': subnet['hidden']})
        assert plain.hidden[0].fc.weight.shape == (subnet['hidden']['out_channel'][0], width)
        assert len(plain.hidden) == subnet['hidden']['depth'][0]
        plain.load_state_dict(subnet_state_dict(head, plain), strict=True)
        check_head(head, plain, width)


def check_head(head: nn.Module, plain: nn.Module, width: int) -> None:
    feats = (torch.randn(3, 5), torch.randn(3, width))
    for scores in (head(feats), plain(feats)):
        assert scores.shape == (3, 5)
    check_same_network(nn.ModuleDict(dict(head=head)), nn.ModuleDict(dict(head=plain)), feats,
                       lambda net, feats: net['head'](feats))


def test_same_arithmetic_without_hidden_layers() -> None:
    config = cls_head(width_up_to(24))
    head = scramble(build(config))
    assert isinstance(head.fc, DynamicLinear)
    for width in range(8, 25):
        plain = MODELS.build({**config, 'in_channels': width})
        plain.load_state_dict(sliced(head.state_dict(), plain.state_dict()), strict=True)
        check_head(head, plain, width)


@pytest.mark.parametrize('scores', [False, True])
def test_equals_mmpretrains_head(scores: bool) -> None:
    """Outputs, losses of labels and of mixed ones, accuracies, predictions."""
    ours = scramble(build(cls_head(12, topk=(1, 2), cal_acc=not scores)))
    theirs = MODELS.build(dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=12, topk=(1, 2),
                               cal_acc=not scores))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    feats, samples = (torch.randn(6, 12),), labelled([0, 4, 3, 2, 4, 1])
    if scores:
        for sample in samples:
            sample.set_gt_score(torch.rand(5).softmax(0))
    assert torch.equal(ours(feats), theirs(feats))
    assert torch.equal(ours.pre_logits(feats), feats[0])
    mine, other = ours.loss(feats, samples), theirs.loss(feats, samples)
    assert mine.keys() == other.keys()
    assert len(mine) == (1 if scores else 3)
    for name, value in mine.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[name]))
    for got, expected in zip(ours.predict(feats), theirs.predict(feats), strict=True):
        assert torch.equal(got.pred_score, expected.pred_score)
        assert torch.equal(got.pred_label, expected.pred_label)


@pytest.mark.parametrize(('act', 'function'), [(None, F.silu), ('ReLU', F.relu), ('HSwish', F.hardswish)])
def test_hidden_layers_written_out(act: str | None, function: Any) -> None:
    config = cls_head(12, hidden=dict(depth=[2], out_channel=[20, 8]), dropout=.5)
    head = scramble(build({**config, **(dict(act_cfg=dict(type=act)) if act else {})})).double().eval()
    state = head.state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        'hidden.0.fc.weight': (20, 12), 'hidden.0.fc.bias': (20,), 'hidden.1.fc.weight': (8, 20),
        'hidden.1.fc.bias': (8,), 'fc.weight': (5, 8), 'fc.bias': (5,)}
    feats = torch.randn(7, 12, dtype=torch.double)
    x = feats
    for name in ('hidden.0.fc', 'hidden.1.fc', 'fc'):
        x = x @ state[f'{name}.weight'].T + state[f'{name}.bias']
        if name != 'fc':
            x = function(x)
    torch.testing.assert_close(head((feats,)), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('hidden', [None, dict(depth=[1], out_channel=[2000])])
def test_dropout_is_of_the_last_layers_input(hidden: Any) -> None:
    head = build(cls_head(2000, hidden=hidden, dropout=.25)).train()
    seen = []
    head.fc.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    feats = torch.rand(4, 2000) + 1
    head((feats,))
    head.eval()((feats,))
    (dropped, kept) = seen
    assert (dropped == 0).float().mean().item() == pytest.approx(.25, abs=.03)
    torch.testing.assert_close(dropped[dropped != 0], kept[dropped != 0] / .75)
    assert kept.all()


@pytest.mark.parametrize('in_channels', [400, width_up_to(400)], ids=['plain', 'dynamic'])
def test_initialisation(in_channels: Any) -> None:
    head = build(cls_head(in_channels, hidden=dict(depth=[1], out_channel=one_of([300]))))
    for layer in (head.hidden[0].fc, head.fc):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=.1)
        assert not layer.bias.any()
    own = build(cls_head(in_channels, init_cfg=dict(type='Constant', layer='Linear', val=2)))
    assert (own.fc.weight == 2).all()


# -- refusals --------------------------------------------------------------------------------------------------------


def space(**kwargs: Any) -> dict[str, Any]:
    return dict(space=kwargs)


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    (dict(num_classes=0), ['BigLinearClsHead.num_classes must be an integer >= 1, got 0']),
    (dict(dropout=1), ['BigLinearClsHead.dropout must be a number >= 0 and < 1, got 1']),
    *((dict(in_channels=value), ['BigLinearClsHead.in_channels must be an integer >= 1, or', f'got {shown(value)}'])
      for value in (0, [8], {}, space(min=[8]), space(min=8, max=16), space(min=[], max=[]),
                    space(min=[8, 8], max=[16, 16]), space(min=[8], max=[16.5]), dict(space=[8, 16]),
                    dict(**space(min=[8], max=[16]), sample_strategy='net_wise'))),
    (dict(in_channels=space(min=[24], max=[16])), ['BigLinearClsHead.in_channels', '24', '16']),
    *((dict(hidden=value), ['BigLinearClsHead.hidden must be a dict with the keys depth, out_channel', got])
      for value, got in (([16], 'got [16]'), (dict(depth=[1]), "no key 'out_channel'"),
                         (dict(depth=[1], out_channel=[8], kernel_size=[3]), "key 'kernel_size'"))),
    (dict(hidden=dict(depth=[0], out_channel=[8])), ['BigLinearClsHead.hidden.depth[0]', 'an integer >= 1, got 0']),
    (dict(hidden=dict(depth=[1, 1], out_channel=[8])),
     ['BigLinearClsHead.hidden.depth', 'one value per stage (1)', '[1, 1]']),
    (dict(hidden=dict(depth=[2], out_channel=[8, 8, 8])),
     ['BigLinearClsHead.hidden.out_channel', 'one per block (2)', '(8, 8, 8)']),
    (dict(hidden=dict(depth=[1], out_channel=[8.5])),
     ['BigLinearClsHead.hidden.out_channel[0]', 'an integer >= 1, got 8.5']),
    (dict(hidden=dict(depth=[1], out_channel=element([8], [20], 8))),
     ['BigLinearClsHead.hidden.out_channel.space.stride', '8', '20']),
    (dict(in_channels=width_up_to(24), hidden=dict(depth=[1], out_channel=[8])),
     ['BigLinearClsHead.hidden must be a supernet', 'in_channels is a space', 'min=[x]', "'depth': [1]"]),
]


@pytest.mark.parametrize(('change', 'parts'), REFUSED, ids=str)
def test_refused(change: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        MODELS.build({**cls_head(12), **change})
    message = str(error.value)
    assert '\n' not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(('labels', 'wrong'), [([0, 5, 7], 5), ([4, -1], -1), ([300], 300)])
def test_labels_that_are_none_of_the_classes(labels: list[int], wrong: int) -> None:
    head, feats = build(cls_head(12)), (torch.randn(len(labels), 12),)
    with pytest.raises(ConfigError) as error:
        head.loss(feats, labelled(labels))
    for part in ('labels of the data must be from 0 to 4', 'BigLinearClsHead.num_classes 5', f'got {wrong}'):
        assert part in str(error.value)
    head.loss(feats, labelled([4] * len(labels)))


def test_labels_of_mixed_images_are_not_looked_at() -> None:
    """Mixed images have scores; they count, whatever labels stand beside them."""
    head, samples = build(cls_head(12)), labelled([9, 9])
    for sample in samples:
        sample.set_gt_score(torch.full((5,), .2))
    assert head.loss((torch.randn(2, 12),), samples)['loss'].isfinite()
