"""The example of docs/tutorials/custom_supernet.md, a project of its own: trained, sampled, evaluated, exported."""
from __future__ import annotations

import json
import os
import random
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas import ConfigError
from mmbignas.data.calibration_images import CalibrationImages
from mmbignas.export.subnet_folder import read_back
from mmbignas.ops import DynamicLayer
from mmbignas.supernet import Supernet, calibrate_bn, subnet_config, subnet_state_dict
from mmbignas.supernet.build import build_model
from tests.models.same_network import check_buffers, check_parameters
from tests.processes import environment
from tests.runs import ROOT, python, records_of
from tests.small_models import scramble

pytest.importorskip('mmpretrain')
PROJECT = ROOT / 'docs' / 'tutorials' / 'custom_supernet'
SHORT = ['train_cfg.max_epochs=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=10']
PLAIN_LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.PReLU)


def tool(project: Path, name: str, *args: Any, code: int = 0) -> str:
    """Run a tool of the repository in the folder of the project, as its owner does; return what it wrote."""
    env = environment(PYTHONPATH=os.pathsep.join(['.', str(ROOT)]))
    return python(ROOT / name, *args, env=env, cwd=project, code=code)


@pytest.fixture(scope='module')
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, with a few images: noise with a bar whose place tells the digit."""
    folder = tmp_path_factory.mktemp('outside') / 'project'
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns('__pycache__', 'work_dirs', 'data'))
    rng = np.random.default_rng(0)
    for split, count in dict(train=2, val=1).items():
        for digit in range(10):
            for index in range(count):
                image = rng.integers(0, 100, (32, 32), dtype=np.uint8)
                image[4:28, 3 * digit:3 * digit + 3] += 100
                mmcv.imwrite(image, str(folder / 'data' / 'digits' / split / str(digit) / f'{index}.png'))
    return folder


@pytest.fixture(scope='module')
def checkpoint(project: Path) -> Path:
    """Of a supernet after four iterations and a validation."""
    text = tool(project, 'tools/train.py', 'ghost_digits.py', '--cfg-options', *SHORT)
    assert 'max.loss' in text
    assert 'random1.loss' in text
    return project / 'work_dirs' / 'ghost_digits' / 'epoch_2.pth'


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """The config of the example, in MMPretrain's scope for the time of a test."""
    monkeypatch.syspath_prepend(PROJECT)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield Config.fromfile(str(PROJECT / 'ghost_digits.py'))


def cut_out(config: Config, model: nn.Module, subnet: Any) -> nn.Module:
    """The plain network of a subnet, with its weights."""
    plain = MODELS.build(subnet_config(config.model, model, subnet))
    plain.load_state_dict(subnet_state_dict(model, plain), strict=True)
    return plain


def check_plain(network: nn.Module) -> None:
    """Whatever holds a parameter is a layer of torch itself."""
    for name, module in network.named_modules():
        assert not isinstance(module, DynamicLayer), name
        if list(module.parameters(recurse=False)):
            assert type(module) in PLAIN_LAYERS, f'{name} is a {type(module)}'


def costs_by_analysis(plain: nn.Module) -> tuple[int, int]:
    """MACs by MMEngine's analysis, and parameters."""
    analyzer = FlopAnalyzer(plain.eval(), torch.zeros(1, 1, 32, 32))
    operators = analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return operators['conv'] + operators['linear'], sum(parameter.numel() for parameter in plain.parameters())


def test_every_subnet_is_the_exported_network(config: Config) -> None:
    """Outputs, gradients and statistics, bit for bit, in eval and in train mode."""
    model, rng, images = scramble(build_model(config)), random.Random(0), torch.randn(2, 1, 32, 48)
    supernet = Supernet(model)
    for subnet in (supernet.space.max(), supernet.space.min(), *(supernet.space.sample(rng) for _ in range(12))):
        supernet.apply(subnet)
        plain = cut_out(config, model, subnet)
        check_plain(plain)
        with torch.no_grad():
            assert torch.equal(model.eval()(images, mode='tensor'), plain.eval()(images, mode='tensor'))
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        model.zero_grad()
        outputs = [network.train()(images, mode='tensor') for network in (model, plain)]
        assert torch.equal(*outputs)
        slopes = torch.randn_like(outputs[0])
        for output in outputs:
            (output * slopes).sum().backward()
        check_parameters(model, plain)
        check_buffers(model, plain, before)


def test_ghosts_stand_beside_their_channels(config: Config) -> None:
    """A ghost module written out by hand; the channels of a narrow one are the first of a wide one."""
    module = scramble(build_model(config)).eval().backbone.stages[1][0].project
    state, x = module.state_dict(), torch.randn(2, 96, 8, 8)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, gamma, beta = (state[f'{name}.{entry}'][:, None, None] for entry in (
            'running_mean', 'running_var', 'weight', 'bias'))
        return (x - mean) / torch.sqrt(var + 1e-5) * gamma + beta

    own = norm(F.conv2d(x, state['primary.weight']), 'bn1')
    own = torch.where(own > 0, own, own * state['act.weight'][:, None, None])
    ghosts = [F.conv2d(channel, kernel[None], padding=2)
              for channel, kernel in zip(own.split(1, 1), state['cheap.weight'], strict=True)]
    with torch.no_grad():
        module.set_active(48, 5)
        wide = module(x)
        torch.testing.assert_close(wide[:, ::2], own, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(wide[:, 1::2], norm(torch.cat(ghosts, 1), 'bn2'), rtol=1e-4, atol=1e-4)
        for width in (24, 32, 40):
            module.set_active(width, 5)
            narrow = module(x)
            assert narrow.shape[1] == width
            torch.testing.assert_close(narrow, wide[:, :width], rtol=1e-5, atol=1e-5)


def test_costs_are_those_of_the_exported_networks(project: Path, config: Config) -> None:
    """SampleFlops against MMEngine's analysis."""
    text = tool(project, 'tools/sample_flops.py', 'ghost_digits.py', '--image-size', 32, 32, '--subnet-count', 40,
                '--out', 'flops')
    model = build_model(config)
    space = Supernet(model).space
    assert f'the space has {space.size}' in text
    assert 'cannot be divided' not in text
    lines = [json.loads(line) for line in (project / 'flops' / 'subnets.jsonl').read_text().splitlines()]
    assert len(lines) == 40
    for line in lines[:4]:
        plain = cut_out(config, model, space[int(line['number'])])
        assert (line['macs'], line['params']) == costs_by_analysis(plain)


@pytest.mark.slow
def test_calibrated_evaluated_and_exported(project: Path, checkpoint: Path, config: Config,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """The written network is the calibrated subnet, and as good, alone in MMEngine's own loop."""
    validated = {line['name']: line['metrics']['accuracy/top1']
                 for line in records_of(project / 'work_dirs' / 'ghost_digits', 'val')}
    assert list(validated) == ['max_calib', 'min_calib']
    text = tool(project, 'tools/export_subnet.py', 'ghost_digits.py', checkpoint, '--subnet', 'min', '--out', 'min',
                '--cfg-options', SHORT[-1])
    assert 'calibrated with 20 images' in text
    assert 'equal, bit for bit' in text
    tool(project, 'tools/test.py', 'min/config.py', 'min/checkpoint.pth', '--work-dir', 'tested')
    [metrics] = (json.loads(path.read_text()) for path in (project / 'tested').glob('*/*.json'))
    assert metrics['accuracy/top1'] == pytest.approx(validated['min_calib'])

    supernet = Supernet(build_model(config))
    supernet.model.load_state_dict(torch.load(checkpoint, weights_only=False)['state_dict'])
    supernet.apply(supernet.space.min())
    monkeypatch.chdir(project)
    config.train_dataloader.batch_size = 10
    calibrate_bn(supernet.model, CalibrationImages.from_config(config).load(lambda text: None))
    plain, images = read_back(project / 'min'), torch.randn(3, 1, 64, 32)
    check_plain(plain)
    assert 'space' not in (project / 'min' / 'config.py').read_text()
    with torch.no_grad():
        assert torch.equal(supernet.model.eval()(images, mode='tensor'), plain(images, mode='tensor'))


@pytest.mark.slow
def test_sample_of_accuracies(project: Path, checkpoint: Path, config: Config) -> None:
    text = tool(project, 'tools/test.py', 'ghost_digits_sample_accuracy.py', checkpoint, '--work-dir', 'sampled',
                '--cfg-options', 'test_cfg.subnet_count=4', 'test_cfg.predicted_count=0', SHORT[-1])
    assert text.count('BN calibration of subnet') >= 1
    _, *lines = map(json.loads, (project / 'sampled' / 'sample_accuracy' / 'ledger.jsonl').read_text().splitlines())
    model = build_model(config)
    space = Supernet(model).space
    assert len({line['number'] for line in lines}) == 4
    for line in lines:
        plain = MODELS.build(subnet_config(config.model, model, space[int(line['number'])]))
        assert line['params'] == sum(parameter.numel() for parameter in plain.parameters())
        assert 0 <= line['metrics']['accuracy/top1'] <= 100


def test_the_script_that_checks_a_supernet(config: Config, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    """It passes the example, and finds slopes that are the last ones in place of the first."""
    monkeypatch.setattr(sys, 'argv', ['check.py', config.filename])
    runpy.run_path(str(PROJECT / 'check.py'))
    assert '12 of 8064 subnets are equal' in capsys.readouterr().out
    monkeypatch.setattr(sys.modules['ghost_net'].DynamicPReLU, 'forward',
                        lambda self, x: F.prelu(x, self.weight[-x.shape[1]:]))
    with pytest.raises(AssertionError):
        runpy.run_path(str(PROJECT / 'check.py'))


def test_a_width_that_has_no_half_is_refused(config: Config) -> None:
    config.model.backbone.out_channel = [16, 25, 40]
    with pytest.raises(ConfigError, match=r'GhostNet.out_channel must be even widths in stage 1, got \[25\]'):
        build_model(config)
