"""Wrong keys and types of a config are one line; mistakes of a program keep their traceback."""
import pytest
from mmcv.cnn import build_norm_layer
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, OPTIMIZERS, PARAM_SCHEDULERS
from mmengine.runner import Runner
from torch import nn

from mmbignas.cli import run_tool
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


@pytest.mark.parametrize(('cfg', 'message'), [
    (dict(type=Grandchild, numbr=1), 'Grandchild.numbr: there is no such key; nearest: number; allowed: number'),
    (dict(type='BigFPN', in_channel=[1], _scope_='mmbignas'), 'BigFPN.in_channel: there is no such key; nearest: '),
    (dict(type='mmbignas.BigResNett'), "type='mmbignas.BigResNett': there is no such model in the scope mmdet; "
                                       'nearest: mmbignas.BigResNet, '),
    (dict(type='RetinaNett'), "type='RetinaNett': there is no such model in the scope mmdet; nearest: RetinaNet, "),
    (dict(type='Xyzzyx'), "type='Xyzzyx': there is no such model in the scope mmdet; allowed: registered classes"),
])
def test_models(capsys, cfg, message):
    assert line_of(capsys, lambda: MODELS.build(cfg)).startswith(message)


def test_keys_that_parents_take_are_allowed(tmp_path, capsys):
    """A loop passes on to MMEngine's what it does not know; what the Runner gives is not the config's to say."""
    line = line_of(capsys, lambda: build_runner(tmp_path, train_cfg=dict(max_epoch=1)).train())
    assert line.startswith('SandwichTrainLoop.max_epoch: there is no such key; nearest: max_epochs; allowed: ')
    allowed = line.rpartition('allowed: ')[2].split(', ')
    assert {'max_epochs', 'val_begin', 'sample_strategy'} <= set(allowed)
    assert not {'runner', 'dataloader', 'self', 'kwargs'} & set(allowed)


def test_raised_anew_on_the_way_out(capsys):
    """As MMEngine 0.10.0 did, at each level of the config."""
    def build():
        try:
            MODELS.build(dict(type=Grandchild, numbr=1))
        except TypeError as error:
            raise TypeError(f'class `Outer` in outer.py: {error}')  # noqa: B904

    assert line_of(capsys, build).startswith('Grandchild.numbr: ')


@pytest.mark.parametrize(('build', 'message'), [
    (lambda: HOOKS.build(dict(type='LoggerHook', intervall=1)), 'LoggerHook.intervall: there is no such key; nearest: '
                                                                'interval, '),
    (lambda: build_optim_wrapper(nn.Linear(2, 2), dict(optimizer=dict(type='SDG', lr=1))),
     "type='SDG': there is no such optimizer in the scope mmdet; nearest: SGD"),
    (lambda: build_optim_wrapper(nn.Linear(2, 2), dict(optimizer=dict(type='SGD', lrr=1))),
     'SGD.lrr: there is no such key; nearest: lr; allowed: '),
    (lambda: PARAM_SCHEDULERS.build(dict(type='MultiStepLRR'), default_args=dict(optimizer=None)),
     "type='MultiStepLRR': there is no such parameter scheduler in the scope mmdet; nearest: MultiStepLR, "),
    (lambda: Runner.build_dataloader(dict(dataset=ToyDataset(2), sampler=None, batchsize=1)),
     'DataLoader.batchsize: there is no such key; nearest: batch_size, '),
    (lambda: build_norm_layer(dict(type='BNN'), 4),
     "type='BNN': there is no such model in the scope mmdet; nearest: BN"),
])
def test_other_parts_of_a_run(capsys, build, message):
    assert line_of(capsys, build).startswith(message)


def broken_function():
    return broken_function(colour=1)


@pytest.mark.parametrize(('kind', 'build'), [
    # accepted by the class, and then given to something that does not take it
    (TypeError, lambda: MODELS.build(dict(type=Strict, colour='black'))),
    (TypeError, broken_function),
    (TypeError, lambda: MODELS.build(dict(type=broken_function))),
    (TypeError, lambda: OPTIMIZERS.build(dict(type='SGD', lr=1))),  # something is missing
    (KeyError, lambda: {}['type']),
    (KeyError, lambda: OWN_MODELS.build(dict(width=1))),
])
def test_other_errors_pass_through(kind, build):
    with pytest.raises(kind):
        run_tool(build)
