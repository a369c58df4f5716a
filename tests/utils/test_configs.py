"""Wrong keys and types of a config are one line; mistakes of a program keep their traceback."""
from argparse import Namespace

import pytest
from mmcv.cnn import build_norm_layer
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, OPTIMIZERS, PARAM_SCHEDULERS
from mmengine.runner import Runner
from torch import nn

from mmbignas.cli import read_config, run_tool
from mmbignas.registry import MODELS as OWN_MODELS
from mmbignas.supernet.build import use_scope
from tests.toy import ToyDataset, build_runner


class Parent:
    def __init__(self, given, *rest, height=1, **kwargs):
        self.size = dict(**kwargs, height=height)


class Child(Parent):
    def __init__(self, width=1, depth=2, **kwargs):
        super().__init__(0, **kwargs)


class Strict(Child):
    def __init__(self, colour='red', **kwargs):
        super().__init__(width=self.check(colour), **kwargs)

    def check(self, value, other=None):
        return self.check(value, colour=other) if value == 'black' else value


class Grandchild(Strict):
    """Its parents pass on what they do not know, and the last takes nothing of it."""

    def __init__(self, number=0):
        super().__init__()


@pytest.fixture(autouse=True)
def scope():
    use_scope(dict(default_scope='mmdet'))


def line_of(capsys, build):
    with pytest.raises(SystemExit) as stop:
        run_tool(build)
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    return line.removeprefix('error: ')


@pytest.mark.parametrize(('build', 'message'), [
    (lambda: MODELS.build(dict(type=Grandchild, numbr=1)), "Grandchild.__init__() got an unexpected keyword argument "
                                                           "'numbr'"),
    (lambda: MODELS.build(dict(type='BigFPN', in_channel=[1], _scope_='mmbignas')),
     "BigFPN.__init__() got an unexpected"),
    (lambda: MODELS.build(dict(type='mmbignas.BigResNett')), 'mmbignas.BigResNett is not in the mmdet::model registry'),
    (lambda: MODELS.build(dict(type='RetinaNett')), 'RetinaNett is not in the mmdet::model registry'),
    (lambda: HOOKS.build(dict(type='LoggerHook', intervall=1)), "argument 'intervall'"),
    (lambda: build_optim_wrapper(nn.Linear(2, 2), dict(optimizer=dict(type='SDG', lr=1))),
     'optim_wrapper.optimizer.type is not in the optimizer registry'),
    (lambda: build_optim_wrapper(nn.Linear(2, 2), dict(optimizer=dict(type='SGD', lrr=1))), "SGD.__init__() got an "
                                                                                            "unexpected"),
    (lambda: PARAM_SCHEDULERS.build(dict(type='MultiStepLRR'), default_args=dict(optimizer=None)),
     'MultiStepLRR is not in the '),
    (lambda: Runner.build_dataloader(dict(dataset=ToyDataset(2), sampler=None, batchsize=1)), "argument 'batchsize'"),
    (lambda: build_norm_layer(dict(type='BNN'), 4), 'Cannot find None in registry under'),
    (lambda: OWN_MODELS.build(dict(width=1)), 'must contain the key "type", but got {\'width\': 1}'),
    (lambda: build_norm_layer({}, 4), 'the cfg dict must contain the key "type" (build_norm_layer)'),
    *((lambda own=own: MODELS.build(dict(type='BigFPN', in_channels=[8], num_outs=1, depth=[1, 1], out_channel=[8, 8],
                                         _scope_='mmbignas', **own)), 'm_cfg must be a dict with a type, got ')
      for own in (dict(norm_cfg={}), dict(norm_cfg='BN'), dict(norm_cfg=[1]))),
    (lambda: MODELS.build(dict(type=[1])), "type must be a str or valid type, but got <class 'list'>"),
    (lambda: MODELS.build(5), "cfg should be a dict, ConfigDict or Config, but got <class 'int'>"),
])
def test_wrong_keys_and_types(capsys, build, message):
    assert message in line_of(capsys, build)


def test_a_key_that_constructors_pass_on(tmp_path, capsys):
    """It is refused by a class that the config does not name, so the file and the line are told too."""
    line = line_of(capsys, lambda: build_runner(tmp_path, train_cfg=dict(max_epoch=1)).train())
    assert "got an unexpected keyword argument 'max_epoch' (sandwich_loop.py:" in line


def broken_function():
    return broken_function(colour=1)


@pytest.mark.parametrize(('kind', 'build'), [
    # accepted by the class, and then given to something that does not take it
    (TypeError, lambda: MODELS.build(dict(type=Strict, colour='black'))),
    (TypeError, broken_function),
    (TypeError, lambda: MODELS.build(dict(type=broken_function))),
    (TypeError, lambda: OPTIMIZERS.build(dict(type='SGD', lr=1))),  # something is missing
    (KeyError, lambda: {}['type']),
])
def test_other_errors_pass_through(kind, build):
    with pytest.raises(kind):
        run_tool(build)


@pytest.mark.parametrize(('name', 'content', 'message'), [
    ('a.py', b'', "a.py: model must be a dict, got None"),
    ('a.py', b'model = 3', "a.py: model must be a dict, got 3"),
    ('a.py', b'model = dict(', 'a.py: cannot be read as a config (SyntaxError: '),
    ('a.py', bytes(range(256)), 'a.py: cannot be read as a config (UnicodeDecodeError: '),
    ('a.py', b'model = 1\x00', 'a.py: cannot be read as a config ('),
    ('a.py', b"_base_ = 'no.py'", 'a.py: cannot be read as a config (FileNotFoundError: '),
    ('a.txt', b'model = {}', 'a.txt: cannot be read as a config ('),
    ('a.json', b'[1, 2]', 'a.json: cannot be read as a config ('),
    ('a.json', b'[' * 10**5, 'a.json: cannot be read as a config (RecursionError: '),
    ('a.yaml', b'model: !!bool maybe', 'a.yaml: cannot be read as a config (KeyError: '),
])
def test_files_that_are_no_configs(tmp_path, capsys, name, content, message):
    (tmp_path / name).write_bytes(content)
    args = Namespace(config=str(tmp_path / name), cfg_options={})
    assert line_of(capsys, lambda: read_config(args)).startswith(f'{tmp_path}/{message}')


def test_what_a_config_raises_itself_passes_through(tmp_path):
    (tmp_path / 'a.py').write_text('model = dict(type=name)')
    with pytest.raises(NameError):
        run_tool(lambda: read_config(Namespace(config=str(tmp_path / 'a.py'), cfg_options={})))
