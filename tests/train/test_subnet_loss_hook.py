"""Curves of the loss by width and depth, against means that are computed from the logged losses."""
import json
from statistics import fmean

import pytest

from mmbignas.errors import ConfigError
from mmbignas.space import ModuleSpace
from mmbignas.train import SubnetLossHook
from tests.toy import PassRecorder, ToyModel, build_runner

STRATEGY = ['max', 'min', 'random', 'random']


def train(tmp_path, hook, strategy=STRATEGY, number=None, **kwargs):
    passes = PassRecorder()
    train_cfg = dict(sample_subnet_num=number or len(strategy), sample_strategy=strategy,
                     **kwargs.pop('train_cfg', {}))
    runner = build_runner(tmp_path, hooks=[passes, hook], train_cfg=train_cfg, **kwargs)
    runner.train()
    return runner, passes.passes


def entries(runner):
    """The lines of ``scalars.json`` with curves: step -> tag -> mean."""
    with open(f'{runner.log_dir}/vis_data/scalars.json') as file:
        lines = [json.loads(line) for line in file]
    found = [line for line in lines if any(tag.startswith('subnet_loss/') for tag in line)]
    return {line.pop('step'): line for line in found}


def losses_by_pass(runner, passes, names):
    """Iteration from 1, subnet and loss of each drawn pass, as MMEngine's message hub has them."""
    logged = {name: iter(runner.message_hub.log_scalars[f'train/{name}.loss'].data[0]) for name in names}
    return [(own.iteration + 1, own, float(next(logged[own.name]))) for own in passes if own.name in logged]


def test_means(tmp_path):
    runner, passes = train(tmp_path, SubnetLossHook(interval=3, window=4), batches=10)
    found = entries(runner)
    assert list(found) == [3, 6, 9, 10]
    losses, before = losses_by_pass(runner, passes, ['random0', 'random1']), 0
    assert len(losses) == 20
    for step, scalars in found.items():
        expected = {}
        for name in ('depth', 'out_channel'):
            for value in {own.subnet['backbone'][name][0] for own in passes}:
                so_far = [(iteration, loss) for iteration, own, loss in losses
                          if iteration <= step and own.subnet['backbone'][name] == (value,)]
                if so_far and so_far[-1][0] > before:
                    expected[f'subnet_loss/backbone.{name}/{value}'] = fmean(loss for _, loss in so_far[-4:])
        assert scalars == pytest.approx(expected, rel=1e-5)
        before = step
    assert len({tag for scalars in found.values() for tag in scalars}) == 6


def test_one_subnet_an_iteration(tmp_path):
    runner, passes = train(tmp_path, SubnetLossHook(['backbone.depth'], interval=12, window=100), number=1, batches=12)
    losses = losses_by_pass(runner, passes, ['random0', 'random1'])
    assert [iteration for iteration, _, _ in losses] == [3, 4, 7, 8, 11, 12]
    (step, scalars), = entries(runner).items()
    values = {own.subnet['backbone']['depth'][0] for _, own, _ in losses}
    assert (step, scalars) == (12, {f'subnet_loss/backbone.depth/{value}': pytest.approx(fmean(
        loss for _, own, loss in losses if own.subnet['backbone']['depth'] == (value,)), rel=1e-5)
        for value in values})


def test_image_sizes(tmp_path):
    sizes = [[4, 4], [5, 5], [6, 6]]
    runner, passes = train(tmp_path, SubnetLossHook(interval=10), batches=10,
                           train_cfg=dict(image_size_list=sizes, interpolation_type='nearest'))
    losses = losses_by_pass(runner, passes, ['random0', 'random1'])
    scalars = entries(runner)[10]
    for size in sizes:
        expected = fmean(loss for _, own, loss in losses if own.image_size == tuple(size))
        assert scalars['subnet_loss/image_size/{}x{}'.format(*size)] == pytest.approx(expected, rel=1e-5)


class Tall(ToyModel):
    """Two stages with a choice, and one without."""

    def __init__(self):
        super().__init__()
        self.other = Searchable()


class Searchable(ToyModel):
    def __init__(self):
        super().__init__()
        self.search_space = ModuleSpace(dict(
            depth=[1, 1, 1], out_channel=dict(space=dict(min=[4, 8, 4], max=[8, 8, 6], stride=2)),
            expand_ratio=dict(space=dict(min=[1, 1, 1], max=[2, 2, 2], stride=.5), sample_strategy='net_wise')),
            num_stages=3, key='Searchable')

    def apply_subnet(self, settings):
        pass


def test_stages(tmp_path):
    """Each stage with a choice has curves of its own; a value of the whole net is one."""
    runner, _ = train(tmp_path, SubnetLossHook(['other.out_channel', 'other.expand_ratio'], interval=16), batches=16,
                      model=Tall())
    tags = {tag.removeprefix('subnet_loss/other.') for tag in entries(runner)[16]}
    assert tags == {'out_channel.0/4', 'out_channel.0/6', 'out_channel.0/8', 'out_channel.2/4', 'out_channel.2/6',
                    'expand_ratio/1', 'expand_ratio/1.5', 'expand_ratio/2'}


@pytest.mark.parametrize(('by', 'message'), [
    ('backbone.depth', r"SubnetLossHook.by must be a list of elements, .*, or None, got 'backbone.depth'"),
    ([], r'SubnetLossHook.by must be a list of elements, .*, got \[\]'),
    (['backbone.widths'], r"SubnetLossHook.by\[0\] must be one of backbone.depth, backbone.out_channel, got "
                          r"'backbone.widths'$"),
    (['backbone.depth', 'backbone.kernel_size'], r"SubnetLossHook.by\[1\] must be .*, got 'backbone.kernel_size'"),
    (['image_size'], r"SubnetLossHook.by\[0\] must be .*, got 'image_size'"),
])
def test_refused_elements(tmp_path, by, message):
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, SubnetLossHook(by))


@pytest.mark.parametrize('name', ['interval', 'window'])
def test_refused_numbers(name):
    with pytest.raises(ConfigError, match=f'SubnetLossHook.{name} must be an integer >= 1, got 0'):
        SubnetLossHook(**{name: 0})


def test_a_training_without_drawn_subnets_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"sample_strategy must be a list with random.* got \['max', 'min'\]"):
        train(tmp_path, SubnetLossHook(), strategy=['max', 'min'])
