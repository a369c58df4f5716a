"""BigFPN against MMDetection's FPN; refusals."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from torch import nn

from mmbignas import ConfigError
from mmbignas.models import BigFPN
from mmbignas.ops import DynamicConv2d
from tests.models.same_network import relu_features
from tests.small_models import big_fpn, element, scramble

WIDTHS = [8, 16, 24]


def pair(num_outs: int, extra: str, norm_cfg: dict | None, act_cfg: dict | None) -> tuple[BigFPN, FPN]:
    ours = BigFPN(WIDTHS, [16, 16], num_outs, norm_cfg=norm_cfg, act_cfg=act_cfg, add_extra_convs=extra)
    theirs = FPN(WIDTHS, 16, num_outs, add_extra_convs=extra, relu_before_extra_convs=True, norm_cfg=norm_cfg,
                 act_cfg=act_cfg)
    return ours, theirs


@pytest.mark.parametrize(('norm_cfg', 'act_cfg'), [
    (dict(type='BN'), None), (None, None), (dict(type='BN'), dict(type='ReLU', inplace=False))])
@pytest.mark.parametrize('extra', ['on_output', 'on_input'])
def test_equals_mmdets_fpn_under_the_same_names(extra: str, norm_cfg: dict | None, act_cfg: dict | None) -> None:
    for num_outs in (3, 4, 5, 6):
        ours, theirs = pair(num_outs, extra, norm_cfg, act_cfg)
        theirs.load_state_dict(scramble(ours).state_dict(), strict=True)
        feats = relu_features(WIDTHS, size=40)
        for training in (True, False):
            outputs = ours.train(training)(feats)
            assert len(outputs) == num_outs
            for mine, other in zip(outputs, theirs.train(training)(feats), strict=True):
                assert torch.equal(mine, other), (num_outs, training)


def test_sizes_that_are_no_multiples() -> None:
    ours, theirs = pair(5, 'on_output', None, None)
    theirs.load_state_dict(ours.state_dict())
    feats = [torch.randn(1, width, *size) for width, size in zip(WIDTHS, ((25, 13), (13, 7), (7, 4)))]
    for mine, other in zip(ours(feats), theirs(feats), strict=True):
        assert torch.equal(mine, other)


def test_is_initialised_as_mmdets_fpn() -> None:
    ours, theirs = pair(5, 'on_output', dict(type='BN'), None)
    torch.manual_seed(1)
    ours.init_weights()
    torch.manual_seed(1)
    theirs.init_weights()
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_inputs_are_left_as_they_are() -> None:
    feats = relu_features(WIDTHS)
    before = [feat.clone() for feat in feats]
    BigFPN(WIDTHS, [16, 16], 5, add_extra_convs='on_input')(feats)
    assert all(torch.equal(feat, old) for feat, old in zip(feats, before))


def test_one_choice_makes_a_neck_that_takes_any_width() -> None:
    """A neck without a search, behind a searched backbone."""
    neck = MODELS.build(big_fpn(in_channels=WIDTHS, out_channel=dict(space=dict(min=[16, 16], max=[16, 16]))))
    assert all(isinstance(conv, DynamicConv2d) for conv in neck.modules() if isinstance(conv, nn.Conv2d))
    assert [out.shape[1] for out in neck(relu_features([4, 16, 8]))] == [16] * 5


def test_wrong_inputs_are_refused() -> None:
    neck = MODELS.build(big_fpn(in_channels=WIDTHS))
    with pytest.raises(ValueError, match='cannot cut'):
        neck(relu_features([8, 17, 24]))
    with pytest.raises(ValueError):
        neck(relu_features(WIDTHS[:2]))


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    (dict(num_outs=2), ['BigFPN.num_outs must be an integer >= 3, the number of inputs, got 2']),
    (dict(add_extra_convs='on_lateral'), ['BigFPN.add_extra_convs', 'one of on_output, on_input', "'on_lateral'"]),
    (dict(depth=[3, 4]), ['BigFPN.depth', '[3, 4]', '[3, 5]']),
    (dict(depth=element([3, 5], [3, 6], 1)), ['BigFPN.depth', '[3, 5]']),
    (dict(depth=3), ['BigFPN.depth', '3', '[3, 5]']),
    (dict(out_channel=[16]), ['BigFPN.out_channel', 'one value per stage (2)', '(16,)']),
    (dict(out_channel=16), ['BigFPN.out_channel', '16', 'list of numbers']),
    (dict(out_channel=element([8, 8], [16, 24], 8, 'net_wise')), ['BigFPN.out_channel', "'net_wise'"]),
    (dict(out_channel=element([8, 8], [16, 16], 8, 'block_wise')), ['BigFPN.out_channel', 'kernel_size']),
    (dict(kernel_size=[1, 4]), ['BigFPN.kernel_size', '4', 'odd']),
    (dict(norm_cfg=dict(type='GN', num_groups=2)), ['norm_cfg.type', "'GN'"]),
]


@pytest.mark.parametrize(('change', 'parts'), REFUSED, ids=str)
def test_refused(change: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        MODELS.build(big_fpn(in_channels=WIDTHS, **change))
    message = str(error.value)
    assert '\n' not in message
    for part in parts:
        assert part in message
