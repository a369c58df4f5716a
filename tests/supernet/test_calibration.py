"""BN calibration against statistics of all recorded inputs at once, in float64."""
import copy
import random

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.model import BaseModel, MMDistributedDataParallel
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmbignas.errors import ConfigError
from mmbignas.ops import DynamicBatchNorm2d, DynamicSyncBatchNorm2d, SwitchableBatchNorm2d
from mmbignas.supernet import Supernet
from mmbignas.supernet.calibration import BNState, calibrate_bn
from tests.distributed import run_processes

IMAGE_SIZES = [[(97, 131), (80, 120)], [(101, 141)], [(75, 141), (110, 64), (133, 96)]]


class Net(BaseModel):
    """Calls ``body`` on the inputs; a batch is ``dict(inputs=[image, ...])``."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, inputs, data_samples=None, mode='tensor'):
        assert mode == 'tensor'
        return self.body(torch.stack(inputs))


class Levels(nn.Module):
    """One normalisation for two levels."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.last = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return self.last(self.bn(x)[..., ::2, ::2] + self.bn(x[..., ::2, ::2].exp()))


def batches_of(*counts, size=(9, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [dict(inputs=list(torch.randn(count, 3, *size, generator=generator) * (index + 1) + index))
            for index, count in enumerate(counts)]


def scramble(model, seed=0):
    """Weights and statistics none of which is 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor += 0.1 * torch.rand(tensor.shape, generator=generator)
            else:
                tensor += 7
    return model


def reference(model, batches):
    """Name of each BN that runs -> (mean, unbiased variance) of all its inputs, by a plain training-mode forward."""
    model = copy.deepcopy(model).eval()
    inputs = {}
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            if type(module) is nn.SyncBatchNorm:
                module.__class__ = nn.BatchNorm2d
            if isinstance(module, DynamicSyncBatchNorm2d):
                module.__class__ = DynamicBatchNorm2d
            module.training = True
            module.register_forward_pre_hook(
                lambda module, args, name=name: inputs.setdefault(name, []).append(args[0].clone()))
    with torch.no_grad():
        for batch in batches:
            model(**model.data_preprocessor(batch, False), mode='tensor')
    values = {name: torch.cat([x.double().transpose(0, 1).flatten(1) for x in own], 1) for name, own in inputs.items()}
    return {name: (x.mean(1), x.var(1, unbiased=True)) for name, x in values.items()}


def settings(model):
    """What calibration must put back."""
    return [(module.training, getattr(module, 'momentum', None), sorted(vars(module)), len(module._forward_hooks),
             len(module._forward_pre_hooks)) for module in model.modules()]


def check(model, before, expected):
    """``model`` has the expected statistics and is ``before`` in all else."""
    modules, state, old = dict(model.named_modules()), model.state_dict(), before.state_dict()
    assert settings(model) == settings(before)
    for name, (mean, var) in expected.items():
        width = len(mean)
        if isinstance(modules[name], SwitchableBatchNorm2d) and width != modules[name].num_features:
            continue  # a switchable one hands its input on to one of its children, which is checked by itself
        for key, value in ((f'{name}.running_mean', mean), (f'{name}.running_var', var)):
            got = state.pop(key)
            torch.testing.assert_close(got[:width].double(), value, rtol=2e-6, atol=2e-6)
            assert torch.equal(got[width:], old[key][width:]), key
            assert not torch.equal(got[:width], old[key][:width]), key
    for key, value in state.items():
        assert torch.equal(value, old[key]), key


def search(low, high, stride, strategy='stage_wise'):
    return dict(space=dict(min=low, max=high, stride=stride), sample_strategy=strategy)


def retinanet(norm):
    register_all_modules(init_default_scope=True)
    norm_cfg = dict(type=norm)
    return MODELS.build(dict(
        type='RetinaNet',
        data_preprocessor=dict(type='DetDataPreprocessor', mean=[100.] * 3, std=[50.] * 3),
        backbone=dict(
            type='mmbignas.BigResNet', out_channel=search([8, 16, 16, 16, 16], [16, 16, 32, 32, 48], [8, 8, 8, 16, 16]),
            depth=search([1, 1, 1, 1, 1], [1, 2, 2, 3, 2], 1, 'stage_wise_depth'), expand_ratio=[.5, 1, 1, 1, 1],
            deep_stem=True, out_indices=(1, 2, 3), drop_path_rate=.3, norm_cfg=norm_cfg),
        neck=dict(type='mmbignas.BigFPN', in_channels=[32, 32, 48], num_outs=5, norm_cfg=norm_cfg,
                  out_channel=search([16, 16], [32, 32], 8, 'net_wise')),
        bbox_head=dict(
            type='mmbignas.BigRetinaHead', num_classes=3, in_channels=32, norm_cfg=norm_cfg,
            cls_tower=dict(depth=search([1], [3], 1), out_channel=search([16], [32], 8, 'block_wise'), kernel_size=[3]),
            anchor_generator=dict(type='AnchorGenerator', ratios=[1.], scales=[6, 8], strides=[8, 16, 32, 64, 128]),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True))))


def detection_batches(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [dict(inputs=[torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes],
                 data_samples=[DetDataSample(metainfo=dict(img_shape=size)) for size in sizes])
            for sizes in IMAGE_SIZES]


@pytest.mark.parametrize('norm', ['BN', 'SwitchableBatchNorm2d', 'SyncBN'])
def test_random_subnets_of_a_detector(norm):
    model = scramble(retinanet(norm)).train()
    supernet, rng, batches = Supernet(model), random.Random(norm), detection_batches()
    used, trained = set(), copy.deepcopy(model.state_dict())
    for subnet in [supernet.space.min(), supernet.space.max(), *(supernet.space.sample(rng) for _ in range(6))]:
        model.load_state_dict(trained)
        supernet.apply(subnet)
        before = copy.deepcopy(model)
        expected = reference(model, batches)
        calibrate_bn(model, batches)
        check(model, before, expected)
        used.update(expected)
    narrow = {name for name in used if '.narrow.' in name}
    assert bool(narrow) == (norm == 'SwitchableBatchNorm2d')
    assert {'bbox_head.reg_tower.2.bns.4', 'backbone.layer3.2.bn2', 'neck.fpn_convs.4.bn'} <= used


def test_calibrated_twice_is_calibrated_once():
    model, batches = scramble(retinanet('BN')), detection_batches()
    calibrate_bn(model, batches)
    once = copy.deepcopy(model.state_dict())
    calibrate_bn(model, iter(batches))
    assert all(torch.equal(value, once[key]) for key, value in model.state_dict().items())


def test_plain_mmdet_model_with_frozen_norms():
    register_all_modules(init_default_scope=True)
    model = scramble(MODELS.build(dict(
        type='RetinaNet', data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
        backbone=dict(type='ResNet', depth=18, frozen_stages=1, norm_eval=True, base_channels=8),
        neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, start_level=1, num_outs=5,
                  norm_cfg=dict(type='BN'), add_extra_convs='on_output'),
        bbox_head=dict(type='RetinaHead', num_classes=3, in_channels=8, feat_channels=8)))).train()
    before, batches = copy.deepcopy(model), detection_batches()
    expected = reference(model, batches)
    calibrate_bn(model, batches)
    check(model, before, expected)
    assert len(expected) > 20 and not model.backbone.bn1.training and model.training
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in before.parameters()]


def test_norm_called_for_two_levels_with_ragged_batches():
    model = scramble(Net(Levels()))
    before, batches = copy.deepcopy(model), batches_of(3, 1, 5)
    expected = reference(model, batches)
    calibrate_bn(model, batches)
    check(model, before, expected)


def test_many_calls():
    model = scramble(Net(Levels()))
    before, batches = copy.deepcopy(model), batches_of(1, 2) * 50
    expected = reference(model, batches)
    calibrate_bn(model, batches)
    check(model, before, expected)


class TwoWidths(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = DynamicBatchNorm2d(4)

    def forward(self, x):
        return self.bn(x), self.bn(x[:, :2] + 1)


def test_norm_called_for_two_widths():
    model, batches = scramble(Net(TwoWidths())), batches_of(2, 3, 1)
    before = copy.deepcopy(model.body.bn)
    calibrate_bn(model, batches)
    x = torch.cat([torch.stack(batch['inputs']) for batch in batches]).double()
    for name, expected in (('running_mean', torch.cat([x[:, :2], x[:, :2] + 1]).mean((0, 2, 3))),
                           ('running_var', torch.cat([x[:, :2], x[:, :2] + 1]).var((0, 2, 3)))):
        torch.testing.assert_close(getattr(model.body.bn, name)[:2].double(), expected, rtol=1e-6, atol=1e-6)
        assert getattr(model.body.bn, name)[3] == getattr(before, name)[3]
    assert model.body.bn.running_mean[2].item() == pytest.approx(x[:, 2].mean().item(), rel=1e-6)


def test_variance_between_batches_counts():
    model = Net(nn.BatchNorm2d(1, affine=False))
    calibrate_bn(model, [dict(inputs=[torch.zeros(1, 2, 2)]), dict(inputs=[torch.full((1, 2, 2), 3.)] * 2)])
    assert model.body.running_mean.item() == 2
    assert model.body.running_var.item() == pytest.approx((4 * 4 + 8 * 1) / 11)


@pytest.mark.parametrize('norm', [
    nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=None), nn.BatchNorm2d(4, affine=False), nn.SyncBatchNorm(4),
    DynamicBatchNorm2d(6), DynamicSyncBatchNorm2d(6), SwitchableBatchNorm2d(6, widths=[2, 4, 6]),
    SwitchableBatchNorm2d(4, widths=[2, 4])], ids=lambda norm: repr(norm)[:45].replace('\n', ''))
def test_kinds_of_norm(norm):
    model = scramble(Net(nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Dropout(), nn.ReLU(), nn.Conv2d(4, 4, 1),
                                       nn.BatchNorm2d(4)))).train()
    before, batches = copy.deepcopy(model), batches_of(2, 3)
    expected = reference(model, batches)
    assert '5' in {name.rsplit('.', 1)[-1] for name in expected}
    calibrate_bn(model, batches)
    check(model, before, expected)
    model.train()(batches[0]['inputs'])  # it still trains


def test_norm_of_vectors_and_norm_without_statistics():
    model = scramble(Net(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(),
                                       nn.BatchNorm1d(3 * 9 * 7))))
    before, batches = copy.deepcopy(model), batches_of(2, 3)
    expected = reference(model, batches)
    assert list(expected) == ['body.2']
    calibrate_bn(model, batches)
    check(model, before, expected)


def test_model_without_norms_is_left_alone():
    calibrate_bn(Net(nn.Conv2d(3, 1, 1)), [])


def test_one_value_a_channel():
    """A batch of one image whose feature is 1x1: torch itself refuses it in training mode."""
    model = scramble(Net(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.BatchNorm2d(3))))
    batches = batches_of(1, 4, 1)
    pooled = torch.cat([torch.stack(batch['inputs']).mean((2, 3)) for batch in batches]).double()
    calibrate_bn(model, batches)
    torch.testing.assert_close(model.body[1].running_mean.double(), pooled.mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model.body[1].running_var.double(), pooled.var(0), rtol=1e-5, atol=1e-6)
    # A value that is normalised by its own mean is 0, so what goes on is the bias.
    bias, four = model.body[1].bias.detach(), copy.deepcopy(model.body[1]).train()(pooled[1:5, :, None, None].float())
    passed_on = torch.cat([bias[None], four.detach()[:, :, 0, 0], bias[None]])
    torch.testing.assert_close(model.body[2].running_mean, passed_on.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.body[2].running_var, passed_on.var(0), rtol=1e-5, atol=1e-5)
    before = copy.deepcopy(model)
    with pytest.raises(ConfigError, match=r'a single value per channel to body\.1, body\.2'):
        calibrate_bn(model, batches[:1])
    check(model, before, {})


def test_offset_much_greater_than_deviation():
    model = Net(nn.BatchNorm2d(3))
    batches = batches_of(2, 3, 2)
    for batch in batches:
        batch['inputs'] = [image * 0.01 + 100 for image in batch['inputs']]
    expected = reference(model, batches)['body']
    calibrate_bn(model, batches)
    torch.testing.assert_close(model.body.running_var.double(), expected[1], rtol=1e-4, atol=0)


def test_statistics_that_were_not_finite():
    model = Net(nn.BatchNorm2d(3))
    model.body.running_mean.fill_(float('nan'))
    model.body.running_var.fill_(float('inf'))
    calibrate_bn(model, batches_of(2))
    assert model.body.running_mean.isfinite().all() and model.body.running_var.isfinite().all()


def test_same_norm_under_two_names():
    norm = nn.BatchNorm2d(3)
    model = Net(nn.Sequential(norm, nn.ReLU(), norm))
    x = torch.stack(batches_of(4)[0]['inputs'])
    normalised = copy.deepcopy(norm).train()(x).detach().relu()
    calibrate_bn(model, batches_of(4))
    both = torch.cat([x, normalised]).double()
    torch.testing.assert_close(norm.running_mean.double(), both.mean((0, 2, 3)), rtol=1e-6, atol=1e-6)


def test_inference_mode_leaves_normal_buffers():
    model = Net(nn.BatchNorm2d(3))
    with torch.inference_mode():
        calibrate_bn(model, batches_of(2))
    assert not model.body.running_mean.is_inference()
    model.train()(batches_of(2)[0]['inputs'])


def test_no_images():
    model = scramble(Net(nn.BatchNorm2d(3)))
    before = copy.deepcopy(model)
    with pytest.raises(ConfigError, match='at least one image'):
        calibrate_bn(model, [])
    check(model, before, {})


class Branches(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.used, self.unused = nn.BatchNorm2d(3), nn.Sequential(norm)

    def forward(self, x):
        return self.used(x)


@pytest.mark.parametrize('norm', [nn.BatchNorm2d(3), SwitchableBatchNorm2d(3, [2])], ids=['plain', 'switchable'])
def test_live_norm_without_data(norm):
    model = scramble(Net(Branches(norm)))
    before = copy.deepcopy(model)
    with pytest.raises(ConfigError, match=r'no data to body\.unused\.0;.*is_active') as error:
        calibrate_bn(model, batches_of(2))
    assert 'narrow' not in str(error.value) and 'body.used' not in str(error.value)
    check(model, before, {})
    model.body.unused.is_active = False
    calibrate_bn(model, batches_of(2))
    assert torch.equal(model.body.unused[0].running_mean, before.body.unused[0].running_mean)


@pytest.mark.parametrize('where', ['forward', 'batches'])
def test_exception_midway(where):
    model = scramble(Net(nn.Sequential(nn.BatchNorm2d(3), nn.SyncBatchNorm(3), DynamicSyncBatchNorm2d(3)))).train()
    before = copy.deepcopy(model)

    def batches():
        yield batches_of(2)[0]
        if where == 'batches':
            raise RuntimeError('disk')
        yield dict(inputs=[torch.zeros(4, 5, 5)])

    with pytest.raises(RuntimeError):
        calibrate_bn(model, batches())
    check(model, before, {})


def test_bn_state():
    model = scramble(retinanet('SwitchableBatchNorm2d'))
    before, state = copy.deepcopy(model), BNState(model)
    calibrate_bn(model, detection_batches())
    buffer = model.backbone.stem[1].running_mean
    state.restore()
    check(model, before, {})
    assert model.backbone.stem[1].running_mean is buffer


def distributed_net(norm):
    torch.manual_seed(0)
    return scramble(Net(nn.Sequential(
        nn.Conv2d(3, 4, 3), DynamicSyncBatchNorm2d(6), nn.ReLU(), norm, nn.Conv2d(4, 2, 3),
        SwitchableBatchNorm2d(4, [2, 4]), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)))).train()


SHARES = ([(0, 1), (2,)], [(0, 1, 2), ()], [(), (0, 2, 1)])


def calibrate_shares(rank):
    batches, states = batches_of(3, 1, 4), []
    for share in SHARES:
        model = distributed_net(nn.SyncBatchNorm(4))
        calibrate_bn(model, [batches[index] for index in share[rank]])
        states.append(model.state_dict())
    model = distributed_net(nn.BatchNorm2d(4))  # DDP refuses torch's synchronised ones on CPU
    calibrate_bn(MMDistributedDataParallel(model, device_ids=None), batches[rank::2])
    states.append(model.state_dict())
    errors = []
    for share in ([], batches if rank else []):
        model = Net(Branches(nn.BatchNorm2d(3)))
        try:
            calibrate_bn(model, share)
        except ConfigError as error:
            errors.append(str(error))
    return states, errors


def test_two_processes():
    results = run_processes(calibrate_shares)
    before, batches = distributed_net(nn.SyncBatchNorm(4)), batches_of(3, 1, 4)
    expected = reference(before, batches)
    assert len(expected) == 5
    for states, errors in results:
        for state in states:
            model = distributed_net(nn.SyncBatchNorm(4))
            model.load_state_dict(state)
            check(model, before, expected)
        assert 'at least one image' in errors[0] and 'body.unused.0' in errors[1]
    for first, second in zip(results[0][0], results[1][0]):
        assert all(torch.equal(value, second[key]) for key, value in first.items())
