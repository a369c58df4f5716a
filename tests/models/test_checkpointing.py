"""Activation checkpointing changes memory and time, and nothing else."""
from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmbignas.distill import DistillHook
from mmbignas.errors import ConfigError
from mmbignas.models import checkpointed
from mmbignas.ops import DynamicBatchNorm2d
from mmbignas.supernet import Supernet
from tests import small_models
from tests.small_classifiers import big_mobilenet, big_regnet
from tests.toy import build_runner

BACKBONES = [small_models.big_resnet, big_regnet, big_mobilenet]


def pair(build: Callable[..., dict], **kwargs: Any) -> tuple[nn.Module, nn.Module]:
    """The same backbone without and with checkpointing."""
    plain = MODELS.build(build(drop_path_rate=.4, **kwargs)).train()
    small_models.scramble(plain)
    saving = MODELS.build(build(drop_path_rate=.4, with_cp=True, **kwargs)).train()
    saving.load_state_dict(plain.state_dict())
    return plain, saving


def step(net: nn.Module, x: Tensor, autocast: bool) -> tuple[list[Tensor], int]:
    """Outputs and gradient of the image after a forward and a backward pass, and the values kept in between."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    torch.manual_seed(4)
    x = x.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast(
            'cpu', torch.bfloat16, enabled=autocast):
        outputs = list(net(x))
    total = sum(kept.values())
    sum(output.float().square().sum() for output in outputs).backward()  # type: ignore[union-attr]
    assert x.grad is not None
    return [*outputs, x.grad], total


@pytest.mark.parametrize(('build', 'norm', 'autocast'), [
    *((build, 'BN', False) for build in BACKBONES), (small_models.big_resnet, 'BN', True),
    (big_regnet, 'SyncBN', False), (small_models.big_resnet, 'mmbignas.SwitchableBatchNorm2d', False)])
def test_same_gradients_and_statistics(build: Callable[..., dict], norm: str, autocast: bool) -> None:
    """Of random subnets one after the other, whose gradients add up; drop-path drops the same."""
    plain, saving = pair(build, norm_cfg=dict(type=norm))
    rng, x = random.Random(1), torch.randn(2, 3, 64, 64)
    for _ in range(2):
        settings = plain.search_space.sample(rng)
        results = []
        for net in (plain, saving):
            net.apply_subnet(settings)
            results.append(step(net, x, autocast))
        for ours, theirs in zip(results[0][0], results[1][0]):
            assert torch.equal(ours, theirs)
    for (name, value), other in zip(plain.named_parameters(), saving.parameters()):
        assert (value.grad is None) == (other.grad is None), name
        assert value.grad is None or torch.equal(value.grad, other.grad), name
    for name, value in plain.state_dict().items():
        assert torch.equal(value, saving.state_dict()[name]), name


@pytest.mark.parametrize('build', BACKBONES)
def test_less_is_kept(build: Callable[..., dict]) -> None:
    plain, saving = pair(build)
    x = torch.randn(4, 3, 128, 128)
    assert step(saving, x, False)[1] < .5 * step(plain, x, False)[1]


def test_a_plain_network_and_eval_mode() -> None:
    kwargs = dict(out_channel=[8, 16, 16, 24, 32], depth=[1, 1, 2, 1, 1], kernel_size=[3] * 5)
    plain, saving = pair(small_models.big_resnet, **kwargs)
    assert torch.equal(*(step(net, torch.ones(2, 3, 64, 64), False)[0][-1] for net in (plain, saving)))
    calls: list[Any] = []
    saving.eval().layer1[0].register_forward_hook(lambda *args: calls.append(args))
    sum(output.sum() for output in saving(torch.ones(1, 3, 64, 64))).backward()  # type: ignore[union-attr]
    assert len(calls) == 1
    saving.train()
    with torch.no_grad():
        assert not saving(torch.ones(2, 3, 64, 64))[0].requires_grad


def test_statistics_after_an_exception() -> None:
    norm = DynamicBatchNorm2d(4)
    buffers = dict(norm.named_buffers())
    norm.register_forward_hook(Failing())
    with pytest.raises(RuntimeError, match='once more'):
        checkpointed(nn.Sequential(norm, nn.ReLU()), torch.randn(2, 4, 3, 3, requires_grad=True)).sum().backward()
    assert norm.num_batches_tracked == 1
    assert all(buffer is buffers[name] for name, buffer in norm.named_buffers())


class Failing:
    """Fails in the second call."""

    called = False

    def __call__(self, *args: Any) -> None:
        if self.called:
            raise RuntimeError('not once more')
        self.called = True


class Detections(torch.utils.data.Dataset):
    metainfo = dict(classes=tuple('abc'))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict:
        return {name: values[index] for name, values in small_models.batch().items()}


def test_training_with_the_largest_as_teacher(tmp_path: Path) -> None:
    """Modules within blocks are mimicked, at image sizes at which the teacher computes once more."""
    states = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = small_models.big_resnet(with_cp=with_cp, drop_path_rate=.3)
        model = small_models.scramble(small_models.build(small_models.retinanet(backbone)))
        jobs = {name: dict(mimic_name=name, loss=dict(type=f'mmbignas.{loss}')) for name, loss in (
            ('backbone.layer3.0.conv1', 'FeatureMSELoss'), ('bbox_head.retina_cls', 'DenseKLLoss'))}
        runner = build_runner(
            tmp_path, model, hooks=[DistillHook(jobs)],
            train_cfg=dict(max_epochs=2, image_size_list=[[32, 32], [64, 64]]),
            train_dataloader=dict(dataset=Detections(), batch_size=2, num_workers=0,
                                  sampler=dict(type='DefaultSampler', shuffle=False)),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-4), clip_grad=dict(max_norm=1.)))
        runner.train()
        assert Supernet(model).model.backbone.with_cp is with_cp
        states.append(copy.deepcopy(model.state_dict()))
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_refused() -> None:
    with pytest.raises(ConfigError, match='BigResNet.with_cp must be True or False, got 1'):
        MODELS.build(small_models.big_resnet(with_cp=1))
