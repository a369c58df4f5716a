"""Stock networks as supernets: what they are, that subnets equal the networks cut out of them, what is refused."""
from __future__ import annotations

import copy
import io
import pickle
import random

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn

from mmbignas import ConfigError
from mmbignas.elastic import Plan, cut_arguments, cut_state, make_plan
from mmbignas.elastic.builder import build_stock
from mmbignas.elastic.conditions import quiet_run, run
from mmbignas.elastic.example import example_batches
from mmbignas.supernet import (
    Supernet,
    calibrate_bn,
    load_weights,
    read_checkpoint,
    subnet_config,
    subnet_state_dict,
)
from tests.elastic.networks import build, densenet, elastic, mobilenet, retinanet

CONFIGS = dict(retinanet=retinanet, densenet=densenet, mobilenet=mobilenet)


@pytest.fixture(scope='module', params=CONFIGS)
def case(request):
    """A supernet, its config, its stock network with the same weights, and a batch."""
    config = CONFIGS[request.param]()
    model = build(elastic(config, example=64))
    stock = MODELS.build(copy.deepcopy(config))
    stock.load_state_dict(model.state_dict(), strict=True)
    batch = next(example_batches(stock, 64))
    return model, config, stock, batch


def cut(model: nn.Module, config) -> nn.Module:
    """The current subnet as a network of its own, from its config."""
    parts = model.elastic.parts
    own = dict(copy.deepcopy(config), of=config['type'], **cut_arguments(model, parts))
    network = MODELS.build(dict(own, type='mmbignas.Cut'))
    network.load_state_dict(cut_state(model, parts), strict=True)
    return network


def subnets(model: nn.Module, count: int):
    supernet, rng = Supernet(model), random.Random(0)
    for subnet in [supernet.space.min(), *(supernet.space.sample(rng) for _ in range(count))]:
        yield supernet.apply(subnet)


def outputs(model: nn.Module, batch, training: bool = False) -> list[torch.Tensor]:
    from mmbignas.utils.models import tensors_in

    with torch.no_grad():
        model.train(training)
        return tensors_in(run(model, batch, 'tensor'))


def equal(one, other) -> bool:
    return len(one) == len(other) > 0 and all(torch.equal(a, b) for a, b in zip(one, other))


def test_it_is_the_stock_network(case):
    model, config, stock, batch = case
    assert isinstance(model, type(stock)) and type(model).__name__ == type(stock).__name__
    assert list(model.state_dict()) == list(stock.state_dict())
    assert [(name, value.shape) for name, value in model.named_parameters()] == [
        (name, value.shape) for name, value in stock.named_parameters()]
    Supernet(model).apply(Supernet(model).space.max())
    assert equal(outputs(model, batch), outputs(stock, batch))


def test_subnets_equal_the_networks_cut_out_of_them(case):
    model, config, stock, batch = case
    widths = set()
    for _ in subnets(model, 8):
        network = cut(model, config)
        assert not hasattr(network, 'elastic')
        assert not any('mmbignas' in type(module).__module__ for module in network.modules()
                       if type(module).__name__ != 'PassThrough')
        assert equal(outputs(model, batch), outputs(network, batch))
        widths.add(sum(parameter.numel() for parameter in network.parameters()))
    assert len(widths) > 5


def test_the_config_and_weights_of_a_subnet_give_the_same_network(case):
    model, config, stock, batch = case
    supernet = Supernet(model)
    own = elastic(config, init_cfg=dict(type='mmbignas.SortedCheckpoint', checkpoint='stock.pth'))
    for subnet in subnets(model, 2):
        Supernet(model).apply(supernet.space.max())
        written = subnet_config(own, model, subnet)
        assert 'init_cfg' not in written and not {'width', 'depth'} & set(written)
        plain = MODELS.build(written)
        with pytest.raises(ValueError, match='in the subnet that is applied, but'):
            subnet_state_dict(model, plain)
        supernet.apply(subnet)
        plain.load_state_dict(subnet_state_dict(model, plain), strict=True)
        assert equal(outputs(model, batch), outputs(plain, batch))


def test_training_moves_gradients_and_statistics_as_in_the_cut_network(case):
    model, config, stock, batch = case
    model = copy.deepcopy(model)
    for _ in subnets(model, 3):
        network = cut(model, config)
        for each in (model, network):
            each.zero_grad()
            each.train()
            losses = run(each, batch, 'loss')
            sum(value.mean() for loss in losses.values()
                for value in (loss if isinstance(loss, list) else [loss])).backward()
        expected = dict(network.named_parameters())
        state = cut_state(model, model.elastic.parts)
        for name, value in network.state_dict().items():
            assert torch.equal(value, state[name]), name
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        total = 0
        for name, parameter in expected.items():
            if parameter.grad is None:
                continue
            own = gradients[name]
            assert own.shape == dict(stock.named_parameters())[name].shape
            # All that is not the subnet's is 0, and what remains are the cut network's values.
            assert torch.equal(own[own != 0], parameter.grad[parameter.grad != 0]), name
            total += int((parameter.grad != 0).sum())
        assert total > 100


def test_calibration_gives_the_statistics_of_the_cut_network(case):
    model, config, stock, batch = case
    model = copy.deepcopy(model)
    images = [dict(inputs=list((torch.rand(2, 3, 64, 64) * 255).byte()),
                   data_samples=copy.deepcopy(batch['data_samples'])) for _ in range(3)]
    for _ in subnets(model, 2):
        network = cut(model, config)
        full = {name: value.clone() for name, value in model.named_buffers()}
        for each in (model, network):
            calibrate_bn(each, copy.deepcopy(images))
        state = cut_state(model, model.elastic.parts)
        for name, value in network.state_dict().items():
            assert torch.equal(value, state[name]), name
        # What the subnet does not use is as it was.
        changed = {name: int((value != full[name]).sum()) for name, value in model.named_buffers()}
        for name, value in network.named_buffers():
            assert changed[name] <= value.numel(), name


@pytest.mark.parametrize('reverted', [False, True])
def test_converted_normalisations_are_elastic_too(case, reverted):
    model, config, stock, batch = case
    model = copy.deepcopy(model)
    Supernet(model).apply(Supernet(model).space.max())
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    kind = nn.SyncBatchNorm
    if reverted:  # as MMEngine does on CPUs
        model, kind = revert_sync_batchnorm(model), nn.modules.batchnorm._BatchNorm
    for _ in subnets(model, 3):
        norms = [layer for layer in model.elastic.parts.layers().values() if isinstance(layer, kind)]
        assert any(layer.weight.numel() < layer._parameters['weight'].numel() for layer in norms)
        network = cut(model, config)
        assert equal(outputs(model, batch), outputs(network, batch))
        assert equal(outputs(model, batch, training=True), outputs(network, batch, training=True))
        state = cut_state(model, model.elastic.parts)
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_copies_and_pickles_are_supernets_of_their_own(case):
    model, config, stock, batch = case
    supernet = Supernet(model)
    supernet.apply(supernet.space.min())
    smallest = outputs(model, batch)
    file = io.BytesIO()
    pickle.dump(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), pickle.load(file)):
        assert equal(outputs(twin, batch), smallest)
        Supernet(twin).apply(supernet.space.max())
        assert equal(outputs(twin, batch), outputs(stock, batch))
        assert equal(outputs(model, batch), smallest)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        assert equal(outputs(model, batch), smallest)


def test_a_layer_that_is_called_several_times_is_sliced_once_per_forward_pass():
    model = build(elastic(retinanet(), example=64))
    batch = next(example_batches(model, 64))
    supernet = Supernet(model)
    supernet.apply(supernet.space.min())
    conv = model.bbox_head.cls_convs[0].conv
    seen = []
    handle = conv.register_forward_hook(lambda module, args, output: seen.append(module.weight))
    run(model, batch, 'tensor')
    handle.remove()
    assert len(seen) == 4 and all(weight is seen[0] for weight in seen)
    with torch.no_grad():
        conv._parameters['weight'].data.add_(1)  # as swapping averaged weights does
    assert not torch.equal(conv.weight, seen[0])


def test_the_search_space_reads_well():
    model = build(elastic(retinanet(), example=64))
    width, depth = model.elastic.width, model.elastic.depth
    names = {gene.name: gene.channels for gene in width.genes}
    assert names['backbone.layer2.inner'] == (4, 8, 12, 16)
    assert names['backbone.layer2.out16'] == (4, 8, 12, 16)
    assert {gene.name: gene.choices for gene in depth.genes} == {
        f'backbone.layer{stage}': (1, 2) for stage in (1, 2, 3, 4)}
    assert list(Supernet(model).space.modules) == ['elastic.width', 'elastic.depth']
    each = build(elastic(retinanet(), example=64, share='group'))
    assert len(each.elastic.width.genes) > len(width.genes)


def test_widths_by_pattern_and_depths_by_run():
    settings = dict(width=[dict(match='backbone.layer[34]', ratios=[0.5, 1.0], divisor=4),
                           dict(match='bbox_head.*', ratios=[0.25, 1.0], divisor=4)],
                    depth={'backbone.layer3': [1, 2]})
    model = build(elastic(retinanet(), example=64, **settings))
    producers = {path for gene in model.elastic.width.genes for name in gene.groups
                 for path in model.elastic.plan.groups[name].producers}
    assert all(path.startswith(('backbone.layer3', 'backbone.layer4', 'bbox_head')) for path in producers)
    assert [gene.name for gene in model.elastic.depth.genes] == ['backbone.layer3']
    Supernet(model).apply(Supernet(model).space.min())
    assert model.backbone.layer3[0].conv1.weight.shape == (16, 16, 3, 3)
    assert model.backbone.layer2[0].conv1.weight.shape == (16, 8, 3, 3)
    assert model.bbox_head.cls_convs[0].conv.out_channels == 4


def test_a_run_may_be_left_out_as_a_whole():
    """Where its first block keeps the shape of its input; the others lead to a narrower one, and stay."""
    config = elastic(retinanet(), example=64, depth={'backbone.layer1': [0, 1, 2], 'backbone.layer2': [1, 2]})
    model = build(config)
    assert {name: run.least for name, run in model.elastic.plan.runs.items()} == {
        f'backbone.layer{number}': int(number > 1) for number in range(1, 5)}
    seen, batch = set(), torch.randn(2, 3, 64, 64)
    for subnet in subnets(model, 12):
        depth = subnet['elastic.depth']['depth'][0]
        if depth in seen:
            continue
        seen.add(depth)
        plain = MODELS.build(subnet_config(config, model, subnet))
        plain.load_state_dict(subnet_state_dict(model, plain), strict=True)
        assert any(True for _ in plain.backbone.layer1.parameters()) == (depth > 0)
        with torch.no_grad():
            assert equal(*([own for level in network.eval()(batch) for own in level] for network in (model, plain)))
    assert seen == {0, 1, 2}
    with pytest.raises(ConfigError, match=r"depth\['backbone.layer2'\] must be a list of numbers of blocks from 1"):
        build(elastic(retinanet(), example=64, depth={'backbone.layer2': [0, 1, 2]}))


@pytest.fixture(scope='module')
def plan_file(tmp_path_factory):
    config = retinanet()
    plan = make_plan(build_stock(config.pop('type'), config), 64)
    path = tmp_path_factory.mktemp('plan') / 'plan.json'
    plan.save(path)
    return path


def test_a_plan_is_read_from_its_file_and_nothing_is_traced(plan_file, monkeypatch):
    monkeypatch.setattr('mmbignas.elastic.builder.make_plan', None)
    model = build(elastic(retinanet(), plan=str(plan_file)))
    assert model.elastic.plan == Plan.load(plan_file)


def test_a_checkpoint_of_another_plan_is_refused_and_the_difference_named(plan_file):
    model = build(elastic(retinanet(), plan=str(plan_file)))
    state = model.state_dict()
    model.load_state_dict(state)
    plan = Plan.load(plan_file)
    name = next(iter(plan.groups))
    plan.groups[name].size += 1
    metadata = state._metadata['elastic']
    state._metadata['elastic'] = dict(metadata, elastic_plan=plan.to_dict())
    with pytest.raises(ConfigError, match=f'checkpoint must have the plan of this model, but group {name} is'):
        model.load_state_dict(state)
    stock = MODELS.build(retinanet())
    stock.load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(stock.state_dict(), strict=True)  # which has no plan


def test_mmengine_writes_the_plan_into_checkpoints_and_refuses_others(plan_file, tmp_path):
    from mmengine.runner.checkpoint import get_state_dict, load_checkpoint, save_checkpoint, weights_to_cpu

    model = build(elastic(retinanet(), plan=str(plan_file)))
    save_checkpoint(dict(meta={}, state_dict=weights_to_cpu(get_state_dict(model))), str(tmp_path / 'a.pth'))
    load_checkpoint(model, str(tmp_path / 'a.pth'))
    plan = Plan.load(plan_file)
    run_name, own = next(iter(plan.runs.items()))
    del plan.runs[run_name]
    plan.save(tmp_path / 'other.json')
    other = build(elastic(retinanet(), plan=str(tmp_path / 'other.json')))
    with pytest.raises(ConfigError, match=f'run {run_name} is new in it'):
        load_checkpoint(other, str(tmp_path / 'a.pth'))
    with pytest.raises(ConfigError, match=f'run {run_name} is new in it'):
        load_weights(other, read_checkpoint(tmp_path / 'a.pth'))
    load_weights(model, read_checkpoint(tmp_path / 'a.pth'))


@pytest.mark.parametrize('settings, message', [
    (dict(of='mmdet.RetinaNot'), "of must be the name of a registered model.*near it are.*RetinaNet"),
    (dict(width=dict(ratios=[0.5])), r'width.ratios must have 1.0 among them'),
    (dict(width=dict(ratios=[0.0, 1.0])), r'width.ratios must be a list of numbers greater than 0'),
    (dict(width=dict(ratios=[0.01, 1.0], divisor=1)), r'width.ratios must leave a channel, got 0.01, which leaves 0'),
    (dict(width=[dict(match='backbone.layer1', ratios=[0.5, 1.0], divisor=64)]), 'divisor must not be greater'),
    (dict(width=[dict(match='backbone.layr3', ratios=[0.5, 1.0])]), r'match must match.*backbone.layer3'),
    (dict(width=dict(ratio=[0.5, 1.0])), 'width must be dict'),
    (dict(depth={'backbone.layer9': [1]}), 'depth must name runs.*backbone.layer1, backbone.layer2'),
    (dict(depth={'backbone.layer2': [0, 2]}), r'must be a list of numbers of blocks from 1 to 2'),
    (dict(depth={'backbone.layer1': [1]}), r'must be a list of numbers of blocks from 0 to 2, the last of them'),
    (dict(depth=True), "depth must be 'residual'"),
    (dict(width=None, depth=None), 'width and depth must leave something to choose'),
    (dict(share='all'), 'share must be one of stage, group'),
    (dict(plan='/nowhere/plan.json'), 'plan must be a plan file'),
])
def test_what_cannot_be_is_refused(settings, message, plan_file):
    with pytest.raises(ConfigError, match=message):
        MODELS.build(elastic(retinanet(), **{'plan': str(plan_file), **settings})
                     if 'of' not in settings else dict(elastic(retinanet()), **settings))


def test_a_plan_of_another_model_is_refused(plan_file):
    with pytest.raises(ConfigError, match='plan of this model, but it is of a RetinaNet, not of a ImageClassifier'):
        MODELS.build(elastic(densenet(), plan=str(plan_file)))
    config = retinanet()
    config['backbone']['depth'] = 34
    with pytest.raises(ConfigError, match=r'plan of this model, but backbone.layer1.2.conv1.weight has shape None'):
        MODELS.build(elastic(config, plan=str(plan_file)))


def test_what_would_spoil_subnets_is_refused_with_the_line_to_add(plan_file):
    config = retinanet()
    config['backbone'].update(norm_eval=True, frozen_stages=1)
    message = (r'backbone has norm_eval=True and frozen_stages=1; add '
               r'backbone=dict\(norm_eval=False, frozen_stages=-1\) to the model')
    with pytest.raises(ConfigError, match=message):
        MODELS.build(elastic(config, plan=str(plan_file)))
    head = [dict(match='bbox_head.cls_convs', ratios=[0.5, 1.0])]
    MODELS.build(elastic(config, plan=str(plan_file), width=head, depth=None))  # none of these are in the backbone


def test_a_model_of_no_package_needs_an_example():
    from tests.elastic.networks import Toy, images

    toy = Toy(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)))
    with pytest.raises(ConfigError, match=r"example must be given for a Toy.*'package.module.function'"):
        make_plan(toy)
    assert list(make_plan(toy, images()).groups) == ['net.0']


def test_gradients_are_checked_in_both_modes(case):
    """Losses are finite in training mode for the smallest subnet, without gradients in `quiet_run`."""
    model, config, stock, batch = case
    supernet = Supernet(model)
    supernet.apply(supernet.space.min())
    with quiet_run(model, training=True):
        losses = run(model, batch, 'loss')
    assert all(bool(torch.isfinite(value).all()) for loss in losses.values()
               for value in (loss if isinstance(loss, list) else [loss]))
