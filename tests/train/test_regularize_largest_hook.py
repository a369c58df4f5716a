"""Drop layers and weight decay for the largest subnet alone."""
import copy

import pytest
import torch
from mmcv.cnn.bricks import DropPath
from mmengine.hooks import Hook
from torch import nn

from mmbignas.errors import ConfigError
from mmbignas.supernet import Supernet
from mmbignas.train import RegularizeLargestHook
from tests.toy import PassRecorder, ToyModel, build_runner, train_batches

DECAY = .2


class DroppingModel(ToyModel):
    """A dropout and a drop-path that train, and a dropout that is frozen in eval mode."""

    def __init__(self):
        super().__init__(drop=.5)
        self.paths = nn.ModuleList([DropPath(.3), nn.Dropout2d(.1)])
        self.frozen = nn.Dropout(.2)

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self

    def drops(self):
        return [self.backbone.drop, *self.paths, self.frozen]


class Watch(Hook):
    """Training flags of the drop layers, and weight decays, in each pass and around the iterations."""

    priority = 'LOW'

    def __init__(self):
        self.flags, self.others, self.decays, self.after, self.val = [], [], [], [], []

    def flags_of(self, runner):
        return [module.training for module in runner.model.drops()]

    def before_subnet_forward(self, runner, subnet_pass):
        self.flags.append((subnet_pass.is_max, self.flags_of(runner)))
        drops = runner.model.drops()
        self.others.append(all(module.training for module in runner.model.modules() if module not in drops))

    def after_subnet_forward(self, runner, subnet_pass, losses):
        self.decays.append((subnet_pass.iteration, [group['weight_decay'] for group in
                                                    runner.optim_wrapper.optimizer.param_groups]))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.after.append((self.flags_of(runner), [group['weight_decay'] for group in
                                                   runner.optim_wrapper.optimizer.param_groups]))

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.val += self.flags_of(runner)


def optimizer(**kwargs):
    return dict(optimizer=dict(type='SGD', lr=.1, momentum=.9, weight_decay=DECAY), **kwargs)


def train(tmp_path, strategy, number=None, model=None, hooks=(), **kwargs):
    watch, passes = Watch(), PassRecorder()
    train_cfg = dict(sample_subnet_num=number or len(strategy), sample_strategy=strategy,
                     **kwargs.pop('train_cfg', {}))
    kwargs = {'optim_wrapper': optimizer(), **kwargs}
    runner = build_runner(tmp_path, model or DroppingModel(), train_cfg=train_cfg,
                          hooks=[RegularizeLargestHook(), watch, passes, *hooks], **kwargs)
    runner.train()
    return runner, watch, passes.passes


def test_drop_layers_work_in_the_largest_only(tmp_path):
    model = DroppingModel()
    runner, watch, _ = train(tmp_path, ['max', 'min', 'random', 'max', 'middle'], model=model, val_cfg={},
                             train_cfg=dict(max_epochs=2))
    assert len(watch.flags) == 40
    for is_max, flags in watch.flags:
        assert flags == [is_max] * 3 + [False]
    assert all(watch.others)
    assert all(flags == [True] * 3 + [False] for flags, _ in watch.after)
    assert watch.val
    assert not any(watch.val)


def test_only_the_largest_is_random(tmp_path):
    """Without drops the loss of a pass is that of the same pass in eval mode of the drop layers."""
    model = DroppingModel()
    weights = copy.deepcopy(model.state_dict())
    runner, _, passes = train(tmp_path, ['max', 'min', 'middle'], model=model)
    model.load_state_dict(weights)
    batch = train_batches()[0]
    for own in passes[:3]:
        Supernet(model.train()).apply(own.subnet)
        for drop in model.drops():
            drop.eval()
        losses = model(**model.data_preprocessor(batch, True), mode='loss')
        logged = runner.message_hub.log_scalars[f'train/{own.name}.loss_cls'].data[0][0]
        assert (logged == pytest.approx(losses['loss_cls'].item(), rel=1e-6)) is not own.is_max


def plain_weights(model, passes, decays, groups=1):
    """Training with torch alone, with its own weight decay in each step."""
    sgd = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9)
    supernet = Supernet(model.train())
    for drop in model.drops():
        drop.eval()
    for step, decay in enumerate(decays):
        sgd.param_groups[0]['weight_decay'] = decay
        for iteration in range(step * groups, (step + 1) * groups):
            data = model.data_preprocessor(train_batches()[iteration % 4], True)
            for own in passes:
                if own.iteration == iteration:
                    supernet.apply(own.subnet)
                    losses = model(**data, mode='loss')
                    ((losses['loss_cls'] + losses['loss_norm']) / groups).backward()
        sgd.step()
        sgd.zero_grad()
    return model


def no_drop_model():
    model = DroppingModel()
    for drop in model.drops()[:1]:
        drop.p = 0.
    return model


@pytest.mark.parametrize(('strategy', 'number', 'accumulate', 'decays'), [
    (['max', 'min'], 2, 1, [DECAY] * 4),
    (['min', 'max', 'middle'], 3, 1, [DECAY] * 4),
    (['min', 'middle'], 2, 1, [0] * 4),
    (['max', 'min'], 1, 1, [DECAY, 0] * 2),
    (['min', 'min', 'max'], 1, 1, [0, 0, DECAY, 0]),
    # A step counts for all the iterations whose gradients it takes.
    (['max', 'min'], 1, 2, [DECAY] * 2),
    (['min', 'max'], 1, 2, [DECAY] * 2),
    (['max', 'min', 'min', 'min'], 1, 2, [DECAY, 0]),
])
def test_weight_decay_goes_with_the_largest(tmp_path, strategy, number, accumulate, decays):
    model = no_drop_model()
    expected = copy.deepcopy(model)
    _, watch, passes = train(tmp_path, strategy, number, model=model,
                             optim_wrapper=optimizer(accumulative_counts=accumulate))
    plain_weights(expected, passes, decays, accumulate)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected.get_parameter(name)), name
    assert all(own == [DECAY] for _, own in watch.after)


def test_groups_keep_their_own_decay(tmp_path):
    runner, watch, _ = train(tmp_path, ['max', 'min'], 1, optim_wrapper=optimizer(
        paramwise_cfg=dict(custom_keys=dict(head=dict(decay_mult=.5)), norm_decay_mult=0.)))
    configured = watch.after[0][1]
    assert set(configured) == {0., .5 * DECAY, DECAY}
    assert all(own == (configured if iteration % 2 == 0 else [0.] * len(configured))
               for iteration, own in watch.decays)
    assert all(own == configured for _, own in watch.after)


class DecaySchedule(Hook):
    """Halves the weight decay after each iteration, as a scheduler of MMEngine would."""

    priority = 'LOW'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for group in runner.optim_wrapper.optimizer.param_groups:
            group['weight_decay'] /= 2


def test_a_scheduled_decay_is_kept(tmp_path):
    _, watch, _ = train(tmp_path, ['max', 'min'], 1, hooks=[DecaySchedule()])
    assert watch.decays == [(0, [DECAY]), (1, [0.]), (2, [DECAY / 4]), (3, [0.])]


@pytest.mark.parametrize('by_epoch', [True, False])
def test_checkpoints_have_the_configured_decay(tmp_path, by_epoch):
    runner, _, _ = train(tmp_path, ['min', 'max', 'min'], 1,
                         default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=by_epoch)))
    files = sorted(tmp_path.glob('*.pth'))
    assert len(files) == (1 if by_epoch else 4)
    for file in files:
        groups = torch.load(file)['optimizer']['param_groups']
        assert [group['weight_decay'] for group in groups] == [DECAY]


def test_an_optimizer_without_weight_decay(tmp_path):
    runner = build_runner(tmp_path, hooks=[RegularizeLargestHook()],
                          optim_wrapper=dict(optimizer=dict(type='Rprop', lr=.01)))
    runner.train()
    assert 'weight_decay' not in runner.optim_wrapper.optimizer.param_groups[0]


def test_a_loop_without_subnets_is_refused(tmp_path):
    """It would silently take the weight decay away."""
    runner = build_runner(tmp_path, hooks=[RegularizeLargestHook()], train_cfg=dict(type='EpochBasedTrainLoop'))
    with pytest.raises(ConfigError, match='train_cfg.type must be SandwichTrainLoop .*, got .EpochBasedTrainLoop'):
        runner.train()
