"""Faster R-CNN as a supernet: each subnet is its plain network, MMDetection's own where the sizes are the same."""
from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config, ConfigDict
from torch import nn

from mmbignas import ConfigError
from mmbignas.cost import CostModel
from mmbignas.latency.measurement import TensorMode, measure_latency
from mmbignas.supernet import Supernet, subnet_config, subnet_state_dict
from mmbignas.supernet.check_widths import check_widths
from mmbignas.supernet.forward_inputs import forward_inputs
from tests.elastic.test_costs import TwoStages
from tests.models.same_network import check_buffers, check_parameters, check_plain_layers, tensors
from tests.small_models import NUM_CLASSES, batch, build, scramble

SIZE, PROPOSALS = (64, 96), 23


@pytest.fixture(scope='module')
def config() -> ConfigDict:
    """The narrow model that is shipped, for few classes."""
    path = Path(__file__).parents[2] / 'configs' / '_base_' / 'faster_rcnn_r18_narrow_supernet.py'
    config = Config.fromfile(path).model
    config.roi_head.bbox_head.num_classes = NUM_CLASSES
    config.test_cfg.rpn.max_per_img = PROPOSALS
    return config


def with_weights(plain: nn.Module, supernet: nn.Module) -> nn.Module:
    plain.load_state_dict(subnet_state_dict(supernet, plain), strict=True)
    return plain


def test_a_subnet_is_its_plain_network(config: ConfigDict) -> None:
    supernet = scramble(build(config))
    facade, rng = Supernet(supernet), random.Random(0)
    check_widths(facade)
    images = torch.randn(2, 3, *SIZE)
    for subnet in [facade.space.max(), facade.space.min(), *(facade.space.sample(rng) for _ in range(10))]:
        facade.apply(subnet)
        plain = with_weights(MODELS.build(subnet_config(config, supernet, subnet)), supernet)
        check_plain_layers(nn.ModuleDict(dict(backbone=plain.backbone, neck=plain.neck, tower=plain.rpn_head.tower,
                                              fcs=plain.roi_head.bbox_head.fcs)))
        before = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
        raw, detected, losses, data = [], [], [], batch(SIZE)
        for network in (supernet, plain):
            network.eval()
            with torch.no_grad():
                with forward_inputs(network, images) as inputs:
                    raw.append(tensors(network(images, **inputs)))
                detected.append([tensors([getattr(sample.pred_instances, name) for name in (
                    'bboxes', 'scores', 'labels')]) for sample in network.test_step(copy.deepcopy(data))])
            network.train()
            network.zero_grad()
            torch.manual_seed(0)  # both stages draw the regions that they learn from
            total, values = network.parse_losses(
                network(**network.data_preprocessor(copy.deepcopy(data), training=True), mode='loss'))
            total.backward()
            losses.append(values)
        assert raw[0][0].shape[0] == 2 * PROPOSALS
        assert all(torch.equal(*pair) for pair in zip(*raw, strict=True))
        assert all(torch.equal(*pair) for image in zip(*detected) for pair in zip(*image, strict=True))
        assert losses[0].keys() == losses[1].keys() >= {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox'}
        assert all(torch.equal(value, losses[1][name]) for name, value in losses[0].items())
        check_parameters(supernet, plain)
        check_buffers(supernet, plain, before)


def test_costs_are_those_for_the_proposals_that_an_image_may_have(config: ConfigDict) -> None:
    supernet = build(config)
    cost, rng = CostModel(supernet, [SIZE]), random.Random(0)
    assert cost._divided
    for subnet in [cost.space.min(), cost.space.max(), *(cost.space.sample(rng) for _ in range(10))]:
        plain = MODELS.build(subnet_config(config, supernet, Supernet(supernet).space.canonical(subnet)))
        analyzer = FlopAnalyzer(TwoStages(plain, PROPOSALS).eval(), torch.randn(1, 3, *SIZE))
        analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        assert cost(subnet).ops == analyzer.total()
        assert cost(subnet).params == sum(own.numel() for own in plain.parameters())


def test_latency_of_as_many_proposals_as_an_image_may_have(config: ConfigDict) -> None:
    model = build(config)
    seen: list[int] = []
    model.roi_head.bbox_roi_extractor.register_forward_pre_hook(lambda module, args: seen.append(len(args[1])))
    outputs = TensorMode(model.eval())(torch.randn(2, 3, *SIZE))
    assert seen == [2 * PROPOSALS] and outputs[0][0].shape == (2 * PROPOSALS, NUM_CLASSES + 1)
    assert measure_latency(model, SIZE, threads=1, seconds=0, min_samples=2).median > 0
    with pytest.raises(ConfigError, match='backend must be torch or torch_compile with a two-stage detector'):
        measure_latency(model, SIZE, backend='onnxruntime', threads=1)


def test_rpn_of_one_size_is_mmdetections() -> None:
    common = dict(in_channels=8, anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[.5, 1., 2.],
                                                       strides=[4, 8]))
    own = build(dict(type='mmbignas.BigRPNHead', **common, tower=dict(depth=[2], out_channel=[16], kernel_size=[3])))
    stock = build(dict(type='RPNHead', **common, feat_channels=16, num_convs=2))
    own.load_state_dict({name.replace('rpn_conv.', 'tower.'): value for name, value in stock.state_dict().items()})
    features = [torch.randn(2, 8, size, size) for size in (12, 6)]
    assert all(torch.equal(*pair) for pair in zip(tensors(own(features)), tensors(stock(features)), strict=True))
    assert own.get_anchors and own.loss_cls.use_sigmoid


@pytest.mark.parametrize('agnostic', [False, True])
def test_box_head_of_one_size_is_mmdetections(agnostic: bool) -> None:
    common = dict(in_channels=4, roi_feat_size=3, num_classes=5, reg_class_agnostic=agnostic)
    own = build(dict(type='mmbignas.BigBBoxHead', **common, fcs=dict(depth=[2], out_channel=[16])))
    stock = build(dict(type='Shared2FCBBoxHead', **common, fc_out_channels=16))
    own.load_state_dict({name.replace('shared_fcs.0', 'fcs.0.fc').replace('shared_fcs.1', 'fcs.1.fc'): value
                         for name, value in stock.state_dict().items()})
    regions = torch.randn(7, 4, 3, 3)
    assert all(torch.equal(*pair) for pair in zip(own(regions), stock(regions), strict=True))


def test_starts_as_mmdetections_box_head() -> None:
    """Small values for the last layers, and Xavier's for the others."""
    head = build(dict(type='mmbignas.BigBBoxHead', in_channels=16, num_classes=30, fcs=dict(
        depth=[2], out_channel=dict(space=dict(min=[64], max=[256], stride=64)))))
    assert head.fc_cls.weight.std().item() == pytest.approx(.01, rel=.1)
    assert head.fc_reg.weight.std().item() == pytest.approx(.001, rel=.1)
    first, second = (block.fc.weight for block in head.fcs)
    for weight in (first, second):
        assert weight.abs().max().item() == pytest.approx((6 / sum(weight.shape))**.5, rel=.01)


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match='BigBBoxHead.fcs'):
        build(dict(type='mmbignas.BigBBoxHead', in_channels=4, fcs=dict(depth=[2], out_channels=[16])))
    with pytest.raises(ConfigError, match='BigRPNHead.tower'):
        build(dict(type='mmbignas.BigRPNHead', in_channels=4, tower=dict(depth=[2], out_channel=[16])))


def test_a_plain_extractor_is_told(config: ConfigDict) -> None:
    config = copy.deepcopy(config)
    config.roi_head.bbox_roi_extractor.type = 'SingleRoIExtractor'
    with pytest.raises(ConfigError, match='mmbignas.BigRoIExtractor'):
        check_widths(Supernet(build(config)))
