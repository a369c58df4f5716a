"""The shipped configs of classifiers against the numbers of the papers, and mistakes in them."""
from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mmbignas.cost import CostModel
from mmbignas.data import read_image_sizes
from mmbignas.errors import ConfigError
from mmbignas.space import SearchSpace
from mmbignas.supernet import Supernet, parse_choices, subnet_config
from mmbignas.supernet.build import build_model
from mmbignas.train.sandwich_rule import SandwichRule

ROOT = Path(__file__).parents[1]
FAMILIES = ('regnet_800m', 'resnet18', 'mobilenet')
STEPS = ('supnet', 'sample_flops', 'sample_accuracy', 'evaluate_subnet', 'finetune_subnet', 'subnet', 'search')


def load(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


def model_of(name: str) -> nn.Module:
    with torch.device('meta'):
        return build_model(load(name))


def choices(space: SearchSpace, module: str, element: str) -> list[tuple]:
    return [space.modules[module].choices(element, stage) for stage in range(space.modules[module].num_stages)]


@pytest.mark.parametrize('family', FAMILIES)
def test_every_step_has_a_config(family: str) -> None:
    for step in STEPS:
        assert load(f'{family}_{step}').model.type == 'ImageClassifier'


def test_the_regnet_space() -> None:
    """The space of the reference, and RegNetX-800M in it."""
    space = Supernet(model_of('regnet_800m_supnet')).space
    assert choices(space, 'backbone', 'out_channel') == [
        (32,), (48, 64, 80), (96, 128, 160), (224, 256, 288, 320), (576, 608, 640, 672, 704, 736, 768)]
    assert choices(space, 'backbone', 'depth') == [(1,), (1,), (2, 3, 4), (5, 6, 7, 8, 9), (4, 5, 6)]
    assert choices(space, 'backbone', 'group_width') == [(16,)] * 5
    model = model_of('regnet_800m_subnet')
    assert sum(parameter.numel() for parameter in model.parameters()) == 7_259_656


@pytest.mark.parametrize(('family', 'name', 'macs'), [
    ('regnet_800m', 'regnetx_800m', .8e9), ('mobilenet', 'a0', 203e6), ('mobilenet', 'a6', 709e6)])
def test_published_networks_cost_what_is_published(family: str, name: str, macs: float) -> None:
    """And the config of the network alone is one of them, or costs as much."""
    cfg, model = load(f'{family}_evaluate_subnet'), model_of(f'{family}_evaluate_subnet')
    sizes = read_image_sizes(model, cfg.test_cfg.image_size, 'image_size')
    cost_model = CostModel(model, sizes)
    by_name = {own.name: own.subnet for own in parse_choices(cfg.test_cfg.subnets, cost_model.space, 'subnets')}
    assert cost_model(by_name[name]).macs == pytest.approx(macs, abs=.5e6)
    if name != 'a6':
        plain = subnet_config(cfg.model, model, by_name[name])
        alone = load(f'{family}_subnet').model
        assert list(alone.backbone.out_channel) == plain['backbone']['out_channel']
        assert list(alone.backbone.depth) == plain['backbone']['depth']
        assert alone.head.in_channels == plain['head']['in_channels']


def test_the_smallest_subnet_for_folders_of_images() -> None:
    """The config of the network alone is that of the supernet's smallest subnet, and sees images of its size."""
    cfg, sizes = load('regnet_trashnet_supnet'), load('regnet_trashnet_evaluate_subnet').test_cfg.image_size
    model = build_model(cfg)
    smallest = Supernet(model).space.with_image_sizes(sizes).min()
    plain, own = subnet_config(cfg.model, model, smallest), load('regnet_trashnet_finetune_subnet')
    alone = own.model
    assert (list(alone.backbone.out_channel), list(alone.backbone.depth), alone.head.in_channels) == (
        plain['backbone']['out_channel'], plain['backbone']['depth'], plain['head']['in_channels'])
    alone.init_cfg = None  # the supernet's checkpoint is not there
    network, pictures = build_model(own), torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    batch = dict(inputs=list(pictures), data_samples=None)
    assert network.data_preprocessor(batch)['inputs'].shape[2:] == smallest.image_size == (48, 48)
    preprocessor = build_model(cfg).data_preprocessor
    assert torch.equal(network.data_preprocessor.mean, preprocessor.mean)


def test_the_mobile_space() -> None:
    """About 200 to 2,000 MMACs at the image sizes of AttentiveNAS."""
    cfg = load('mobilenet_sample_flops')
    cost_model = CostModel(model_of('mobilenet_sample_flops'), cfg.test_cfg.image_size)
    costs = [cost_model(subnet).macs / 1e6 for subnet in (cost_model.space.min(), cost_model.space.max())]
    assert 195 < costs[0] < 210
    assert 1800 < costs[1] < 2050


def rates_of(cfg: Config, epochs: int, epoch_length: int = 4) -> torch.Tensor:
    """Learning rate in each iteration, by MMEngine's schedulers: ``(epochs, epoch_length)``."""
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build(own, default_args=dict(optimizer=sgd, epoch_length=epoch_length))
                  for own in cfg.param_scheduler]
    rates = []
    for _ in range(epochs):
        for _ in range(epoch_length):
            rates.append(sgd.param_groups[0]['lr'])
            sgd.step()
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()
    return torch.tensor(rates, dtype=torch.double).view(epochs, epoch_length)


def test_the_papers_recipe() -> None:
    """BigNAS, section 3: learning rate, soft labels, regularisation, image sizes, gamma 0."""
    cfg = load('mobilenet_supnet')
    rates = rates_of(cfg, cfg.train_cfg.max_epochs) / cfg.optim_wrapper.optimizer.lr
    assert rates[5, 0] == pytest.approx(1)
    decay = rates[5:240, 0] / rates[6:241, 0]
    torch.testing.assert_close(decay, torch.full_like(decay, .97 ** (-1 / 2.4)), rtol=1e-3, atol=0)
    torch.testing.assert_close(rates[245:], torch.full_like(rates[245:], .05), rtol=1e-6, atol=0)
    hooks = {hook.type: hook for hook in cfg.custom_hooks}
    assert 'mmbignas.RegularizeLargestHook' in hooks
    distill = hooks['mmbignas.DistillHook']
    assert (distill.jobs.soft.replaces, distill.jobs.soft.mimic_name, distill.same_pixels) == ('loss', 'head.fc', False)
    assert cfg.model.backbone.drop_path_rate == cfg.model.head.dropout == .2
    model = build_model(cfg)
    model.init_weights()
    for stage in range(1, 8):
        assert all(not block.bn3.weight.any() for block in getattr(model.backbone, f'layer{stage}'))
    train_cfg = cfg.train_cfg
    sizes = read_image_sizes(model, train_cfg.image_size_list, 'image_size_list')
    rule = SandwichRule(Supernet(model).space, train_cfg.sample_subnet_num, train_cfg.sample_strategy, sizes)
    assert [own.image_size for own in rule.passes(0, 0)][:2] == [(288, 288), (192, 192)]
    crops = [step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomResizedCrop']
    assert [crop.scale for crop in crops] == [288]


# What is wrong -> the options that make it so, and what the message must hold.
SMALL = {'train_cfg.max_epochs': 1, 'train_dataloader.num_workers': 0, 'val_dataloader.num_workers': 0,
         'train_dataloader.persistent_workers': False, 'val_dataloader.persistent_workers': False}
MISTAKES = {
    'a group width that does not fit': (
        {'model.backbone.group_width': [8, 8, 8, 8, 24]},
        ['BigRegNet.group_width must be a divisor of', '128', 'in stage 4, got 24']),
    'an unknown interpolation': (
        {'train_cfg.interpolation_type': 'lanczos'}, ['train_cfg.interpolation_type', "'lanczos'", 'bicubic']),
    'a resolution below the stride': (
        {'train_cfg.image_size_list': [[8, 8], [64, 64]]}, ['train_cfg.image_size_list', '[8, 8]', 'width >= 16']),
    'a resolution of the validation below the stride': (
        {'val_cfg.image_size': [[15, 64], [64, 64]]}, ['val_cfg.image_size', '[15, 64]', 'height and width >= 16']),
    'a head that cannot change its width': (
        {'model.head.in_channels': 192}, ['model: head', 'does not take the smallest subnet']),
    'a head of MMPretrain': (
        {'model.head.type': 'LinearClsHead', 'model.head.in_channels': 192},
        ['model: head', 'does not take the smallest subnet', 'in place of [x], or mmbignas.BigLinearClsHead']),
    'fewer classes than the data have': (
        {'model.head.num_classes': 2},
        ['model.head.num_classes', '2', 'train_dataloader.dataset', 'must be 3', "('a', 'b', 'c')"]),
    'a loss that the model does not have': (
        {'custom_hooks.1.jobs.soft.replaces': 'loss_cls'}, ['DistillHook.jobs.soft.replaces', "'loss_cls'", 'loss']),
    'no images': (
        {'train_dataloader.dataset.data_root': 'nowhere'}, ['train_dataloader.dataset', 'nowhere']),
}


@pytest.fixture(scope='module')
def data(tmp_path_factory: Any) -> Path:
    """A folder with a few pictures of three classes."""
    import cv2
    import numpy as np
    folder, rng = tmp_path_factory.mktemp('pictures'), np.random.default_rng(0)
    for split in ('train', 'test'):
        for label in 'abc':
            (folder / split / label).mkdir(parents=True)
            for number in range(4):
                image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                cv2.imwrite(str(folder / split / label / f'{number}.png'), image)
    return folder


def train(monkeypatch: Any, folder: Path, data: Path, options: dict[str, Any]) -> None:
    """Run the tool in this process."""
    cfg = load('regnet_trashnet_supnet')
    roots = {f'{part}_dataloader.dataset.data_root': str(data) for part in ('train', 'val', 'test')}
    cfg.merge_from_dict({**SMALL, **roots, 'model.head.num_classes': 3, 'train_dataloader.batch_size': 4, **options})
    cfg.visualizer = dict(type='UniversalVisualizer', name=folder.name)
    cfg.experiment_name = folder.name  # by default the second, which two tests may share, and with it the scope
    cfg.dump(folder / 'config.py')
    monkeypatch.setattr(sys, 'argv', ['train.py', str(folder / 'config.py'), '--work-dir', str(folder / 'run')])
    monkeypatch.setenv('LOCAL_RANK', '0')
    runpy.run_path(str(ROOT / 'tools' / 'train.py'), run_name='__main__')


@pytest.mark.parametrize('name', MISTAKES)
def test_a_mistake_is_told_in_one_line(monkeypatch: Any, capsys: Any, tmp_path: Path, data: Path, name: str) -> None:
    with pytest.raises(SystemExit) as stop:
        train(monkeypatch, tmp_path, data, MISTAKES[name][0])
    assert stop.value.code == 2
    output = capsys.readouterr()
    errors = [line for line in output.err.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1 and 'Epoch(train)' not in output.out
    for part in MISTAKES[name][1]:
        assert part in errors[0]


def test_without_a_mistake_it_trains(monkeypatch: Any, capsys: Any, tmp_path: Path, data: Path) -> None:
    train(monkeypatch, tmp_path, data, {})
    assert (tmp_path / 'run' / 'last_checkpoint').exists(), capsys.readouterr().err[-2000:]


def test_settings_of_another_image_size_are_refused() -> None:
    cfg = load('mobilenet_evaluate_subnet')
    space = Supernet(model_of('mobilenet_evaluate_subnet')).space.with_image_sizes([[192, 192], [224, 224]])
    with pytest.raises(ConfigError, match=r'image_size must be one of \[\[192, 192\], .*, got \[288, 288\]'):
        parse_choices(cfg.test_cfg.subnets[3:], space, 'test_cfg.subnets')
