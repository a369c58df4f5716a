"""What a user of the tools can mend is said in one line; the options reach the config."""

import argparse
import copy
import os
import runpy
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from mmengine.config import Config

from mmbignas import ConfigError
from mmbignas.cli import add_config_arguments, default_work_dir, read_config, run_tool
from mmbignas.registry import MODELS
from mmbignas.supernet import Checkpoint
from mmbignas.supernet.build import build_model, load_supernet
from mmbignas.utils.distributed import build_runner
from tests.small_models import retinanet

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'toy.py'
    path.write_text("optim_wrapper = dict(type='OptimWrapper')\ndefault_hooks = dict(visualization=dict(type='V'))\n")
    return str(path)


def run(monkeypatch, tool, *args):
    """Run a tool in this process, without a Runner; return the config that the Runner would get."""
    configs = []
    monkeypatch.setattr('mmbignas.utils.distributed.build_runner', lambda cfg: configs.append(cfg) or Mock(hooks=[]))
    monkeypatch.setattr(sys, 'argv', [tool, *args])
    monkeypatch.setenv('LOCAL_RANK', '0')
    runpy.run_path(str(TOOLS / tool), run_name='__main__')
    return configs[0]


@pytest.mark.parametrize(
    ('command', 'message'),
    [
        ('train.py missing.py', 'config file not found: missing.py'),
        ('train.py CONFIG --resume missing.pth', 'checkpoint not found: missing.pth'),
        ('train.py CONFIG --auto-scale-lr', 'base_batch_size'),
        ('test.py missing.py x.pth', 'config file not found: missing.py'),
        ('test.py CONFIG', 'has no load_from'),
        ('test.py CONFIG missing.pth', 'checkpoint not found: missing.pth'),
        ('test.py CONFIG CONFIG --out x.json', '--out must be a file that ends in .pkl or .pickle, got'),
        ('export_subnet.py missing.py x.pth --subnet max --out new', 'config file not found: missing.py'),
        ('draw_subnets.py missing.py x.pth --images CONFIG --out x.png --device cpu', 'config file not found'),
        ('export_onnx.py CONFIG x.pth --out x.onnx --image-size 64 64', 'has no model (keys: optim_wrapper, default_'),
        ('sample_flops.py CONFIG --image-size 64 64', 'toy.py: the config has no model'),
        ('latency.py measure CONFIG --image-size 64 64', 'toy.py: the config has no model'),
    ],
)
def test_errors_are_one_line(monkeypatch, capsys, config, command, message):
    tool, *args = command.replace('CONFIG', config).split()
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, tool, *args)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith('error: ')
    assert message in lines[0]


def test_an_error_in_a_constructor_is_one_line(capsys):
    class Broken:
        def __init__(self):
            raise ConfigError('width 7 is not one of 8, 16')

    with pytest.raises(SystemExit):
        run_tool(lambda: MODELS.build(dict(type=Broken)))
    assert capsys.readouterr().err == 'error: width 7 is not one of 8, 16\n'


def test_other_errors_pass_through():
    def broken():
        raise KeyError('x')

    with pytest.raises(KeyError):
        run_tool(broken)


def test_a_config_with_mmpretrain_needs_it(monkeypatch, capsys, config):
    monkeypatch.setitem(sys.modules, 'mmpretrain', None)
    with pytest.raises(SystemExit):
        run(monkeypatch, 'train.py', config, '--cfg-options', 'model.type=mmpretrain.ImageClassifier')
    assert 'mmpretrain is not installed' in capsys.readouterr().err


def test_options_of_training(monkeypatch, tmp_path, config):
    checkpoint = tmp_path / 'x.pth'
    checkpoint.touch()
    cfg = run(monkeypatch, 'train.py', config, '--resume', '--cfg-options', 'optim_wrapper.lr=0.5', 'a=[1,2]')
    assert (cfg.resume, cfg.load_from, cfg.launcher) == (True, None, 'none')
    assert (cfg.optim_wrapper.lr, cfg.a, cfg.work_dir) == (0.5, [1, 2], 'work_dirs/toy')
    cfg = run(monkeypatch, 'train.py', config, '--resume', str(checkpoint), '--work-dir', 'w', '--local-rank=0')
    assert (cfg.resume, cfg.load_from, cfg.work_dir) == (True, str(checkpoint), 'w')
    options = ['auto_scale_lr.base_batch_size=16']
    cfg = run(monkeypatch, 'train.py', config, '--auto-scale-lr', '--cfg-options', *options)
    assert cfg.auto_scale_lr.enable


def test_options_of_testing(monkeypatch, config):
    for checkpoint in ([config], ['--checkpoint', config], ['--cfg-options', f'load_from={config}', 'resume=True']):
        cfg = run(monkeypatch, 'test.py', config, *checkpoint)
        assert (cfg.load_from, cfg.resume) == (config, False)
    cfg = run(monkeypatch, 'test.py', config, config, '--show-dir', 'pictures')
    assert cfg.default_hooks.visualization == dict(
        type='V', draw=True, show=False, wait_time=2, test_out_dir='pictures'
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason='about machines without CUDA')
def test_without_cuda(monkeypatch, capsys, config):
    cfg = run(monkeypatch, 'train.py', config, '--amp', '--cfg-options', 'optim_wrapper.loss_scale=512.')
    assert cfg.optim_wrapper == dict(type='mmbignas.BFloat16OptimWrapper')
    bfloat16 = 'optim_wrapper.type=mmbignas.BFloat16OptimWrapper'
    cfg = run(monkeypatch, 'train.py', config, '--amp', '--cfg-options', bfloat16)
    assert cfg.optim_wrapper.type == 'mmbignas.BFloat16OptimWrapper'
    with pytest.raises(SystemExit):
        run(monkeypatch, 'train.py', config, '--amp', '--cfg-options', 'optim_wrapper.type=OptimWrapperDict')
    assert 'error: optim_wrapper.type must be OptimWrapper, AmpOptimWrapper or BFloat16' in capsys.readouterr().err
    with pytest.raises(ConfigError, match='SLURM_PROCID'):
        build_runner(Config(dict(launcher='slurm', model={})))


def read(*arguments):
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    return read_config(parser.parse_args(arguments))


def test_a_tool_that_is_no_run_leaves_the_environment_alone(monkeypatch, config):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    cfg = read(config, '--cfg-options', 'optim_wrapper.lr=0.5')
    assert 'LOCAL_RANK' not in os.environ
    assert cfg.to_dict() == dict(
        optim_wrapper=dict(type='OptimWrapper', lr=0.5), default_hooks=dict(visualization=dict(type='V'))
    )
    assert default_work_dir(cfg) == 'work_dirs/toy'
    assert default_work_dir(read(config, '--cfg-options', 'work_dir=mine')) == 'mine'


def test_building_leaves_the_config_alone():
    cfg = Config(dict(default_scope='mmdet', model=retinanet()))
    before = copy.deepcopy(cfg.to_dict())
    model = build_model(cfg)
    assert cfg.to_dict() == before
    supernet = load_supernet(cfg, Checkpoint('x.pth', model.state_dict(), {}))
    assert cfg.to_dict() == before
    assert not supernet.model.training
    for name, value in supernet.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    with pytest.raises(ConfigError, match='x.pth: is of another architecture'):
        load_supernet(cfg, Checkpoint('x.pth', dict(a=torch.zeros(1)), {}))


def test_the_data_preprocessor_beside_the_model_is_its_own():
    model = retinanet()
    model.pop('data_preprocessor', None)
    own = dict(type='DetDataPreprocessor', mean=[1, 2, 3], std=[4, 5, 6])
    built = build_model(Config(dict(default_scope='mmdet', model=model, data_preprocessor=own)))
    assert built.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize(('test_cfg', 'allowed'), [
    ("dict(type='TestLoop')", True),
    ("dict(type='mmbignas.SubnetValLoop', subnets=['max'])", True),
    ("dict(type='mmbignas.EvaluateSubnetLoop', subnets=['max'], calib_bn=True)", True),
    ("dict(type='mmbignas.SubnetValLoop')", False),
    ("dict(type='mmbignas.SubnetValLoop', subnets=['max'], calib_bn='both')", False),
    ("dict(type='mmbignas.EvaluateSubnetLoop', subnets=['max'])", False),
    ("dict(type='mmbignas.SampleFlopsLoop')", False),
])
def test_predictions_of_one_network(monkeypatch, capsys, config, test_cfg, allowed):
    """One file cannot hold those of several."""
    Path(config).write_text(Path(config).read_text() + f'test_cfg = {test_cfg}\n')
    arguments = ['test.py', config, config, '--out', 'x.pkl']
    if allowed:
        run(monkeypatch, *arguments)
        return
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments)
    assert 'error: test_cfg must be a test of one network with --out' in capsys.readouterr().err
