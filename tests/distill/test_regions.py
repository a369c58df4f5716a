"""Distillation of the second stage: student and teacher are compared on the teacher's regions."""
from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from torch import Tensor, nn

from mmbignas import ConfigError
from mmbignas.distill import DistillJob, RegionBoxLoss, SoftLabelLoss, TeacherDistillation
from mmbignas.distill.recorder import OutputRecorder
from mmbignas.supernet import Supernet, subnet_config, subnet_state_dict
from tests.distill.test_distill_hook import train
from tests.elastic.networks import cascade_rcnn, mask_rcnn
from tests.models.test_faster_rcnn import config  # noqa: F401  (a fixture)
from tests.small_models import batch, build, scramble
from tests.train.test_sandwich_loop import DetectionDataset

CLASSES, BOXES = 'roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg'
JOBS = dict(cls=dict(mimic_name=CLASSES, loss=dict(type='mmbignas.SoftLabelLoss')),
            box=dict(mimic_name=[BOXES, CLASSES], loss=dict(type='mmbignas.RegionBoxLoss'), loss_weight=2.))


class Looked(Hook):
    """Keeps the regions of each call of the extractor, by pass, and the preprocessed images."""

    def __init__(self, model: Any) -> None:
        self.regions: dict[str, list[Tensor]] = {'': []}
        self.images: Any = None
        self._pass = ''
        model.roi_head.bbox_roi_extractor.register_forward_pre_hook(
            lambda module, args: self.regions[self._pass].append(args[1].clone()))

    def before_subnet_forward(self, runner, subnet_pass) -> None:
        self._pass = subnet_pass.name
        self.regions[self._pass] = []
        self.images = runner.train_loop.data['inputs']

    def after_subnet_backward(self, runner, **kwargs) -> None:
        self._pass = ''


def box_loss(x: Tensor, y: Tensor, logits: Tensor) -> float:
    """By loops over regions."""
    total = weight = 0.
    for own, other, scores in zip(x.double(), y.double(), logits.double().softmax(1)):
        label = int(scores[:-1].argmax())
        start = 4 * label if len(own) > 4 else 0
        total += float(scores[label] * (own - other)[start:start + 4].abs().sum())
        weight += float(scores[label])
    return total / max(weight, 1.)


def kl(student: Tensor, teacher: Tensor) -> float:
    p, q = (torch.distributions.Categorical(logits=own.double()) for own in (teacher, student))
    return torch.distributions.kl_divergence(p, q).mean().item()


def test_in_place_on_the_regions_of_the_largest(tmp_path: Path, config: ConfigDict) -> None:  # noqa: F811
    model = scramble(build(config))
    start = copy.deepcopy(model.state_dict())
    looked = Looked(model)
    runner, _ = train(tmp_path, JOBS, ['max', 'min'], [looked], model, train_dataloader=dict(
        dataset=DetectionDataset(), batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler')),
        train_cfg=dict(max_epochs=1))
    [theirs], [own, compared] = looked.regions['max'], looked.regions['min']
    assert torch.equal(compared, theirs) and not torch.equal(own, theirs)
    model.load_state_dict(start)
    facade, outputs = Supernet(model), []
    for subnet in (facade.space.max(), facade.space.min()):
        facade.apply(subnet)
        plain = MODELS.build(subnet_config(config, model, subnet)).train()
        plain.load_state_dict(subnet_state_dict(model, plain))
        features = plain.extract_feat(looked.images)
        regions = plain.roi_head.bbox_roi_extractor(features[:4], theirs)
        outputs.append([own.detach() for own in plain.roi_head.bbox_head(regions)])
    (logits, deltas), (student_logits, student_deltas) = outputs
    logged = runner.message_hub.log_scalars
    assert logged['train/min.loss_distill_cls'].data[0][0] == pytest.approx(kl(student_logits, logits), rel=1e-4)
    assert logged['train/min.loss_distill_box'].data[0][0] == pytest.approx(
        2 * box_loss(student_deltas, deltas, logits), rel=1e-4)
    assert 'train/max.loss_distill_cls' not in logged


def test_another_detector_teaches_on_its_proposals(config: ConfigDict) -> None:  # noqa: F811
    """The gradient reaches the student's backbone through the regions of the teacher."""
    config = copy.deepcopy(config)
    teacher = scramble(build(config)).eval().requires_grad_(False)
    student = scramble(build(config)).train()
    facade = Supernet(student)
    facade.apply(facade.space.min())
    seen: dict[str, list[Tensor]] = dict(student=[], teacher=[])
    for name, network in dict(student=student, teacher=teacher).items():
        network.roi_head.bbox_roi_extractor.register_forward_pre_hook(
            lambda module, args, name=name: seen[name].append(args[1].clone()))
    job = DistillJob('jobs.cls', 'teacher', (CLASSES,), (CLASSES,), SoftLabelLoss())
    distillation = TeacherDistillation(student, teacher, dict(cls=job), lambda: 0)
    data = student.data_preprocessor(batch((64, 96)), True)
    losses = student(**data, mode='loss')
    assert torch.equal(seen['student'][1], seen['teacher'][0]) and len(seen['student']) == 2
    with torch.no_grad():
        proposals = teacher.rpn_head.predict(teacher.extract_feat(data['inputs']), data['data_samples'], rescale=False)
    assert torch.equal(seen['teacher'][0][:, 1:], torch.cat([own.bboxes for own in proposals]))
    losses['loss_distill_cls'].backward()
    assert student.backbone.stem[0].weight.grad.abs().sum() > 0
    distillation.remove()
    assert '_bbox_forward' not in vars(student.roi_head)


@pytest.mark.parametrize('kind', ['Cascade', 'Mask'])
def test_several_stages_and_masks(kind: str) -> None:
    """Every stage computes on the regions that the same stage of the teacher looked at."""
    stock = ConfigDict(cascade_rcnn() if kind == 'Cascade' else mask_rcnn())
    networks = [scramble(build(stock)).eval() for _ in range(2)]
    name = 'roi_head.bbox_head.1.fc_cls' if kind == 'Cascade' else 'roi_head.mask_head.conv_logits'
    recorders = [OutputRecorder(own, {name: 'jobs.x.mimic_name'}) for own in networks]
    images = torch.randn(2, 3, 64, 64)
    data = networks[0].data_preprocessor(batch((64, 64)), False)['data_samples']
    outputs = []
    with torch.no_grad():
        for network, recorder in zip(networks, recorders):
            recorder.start()
            network(images, data, mode='tensor')
            outputs.append(recorder.stop())
        found = recorders[1].on_regions(outputs[1], recorders[0].regions)[name]
        assert found[0].shape == outputs[0][name][0].shape
        again = recorders[0].on_regions(outputs[0], [])
        assert name not in again
        calls = [own for own in recorders[0].regions if own.method == ('_mask_forward' if kind == 'Mask' else
                                                                       '_bbox_forward')]
        call = calls[1] if kind == 'Cascade' else calls[0]
        features = networks[1].extract_feat(images)
        head = networks[1].roi_head
        extractor = head.bbox_roi_extractor[1] if kind == 'Cascade' else head.mask_roi_extractor
        regions = extractor(features[:extractor.num_inputs], call.regions)
        expected = head.bbox_head[1](regions)[0] if kind == 'Cascade' else head.mask_head(regions)
    assert torch.equal(found[0], expected)


@pytest.mark.parametrize('agnostic', [False, True])
def test_box_loss(agnostic: bool) -> None:
    classes, width = 5, 4 if agnostic else 20
    x, y, logits = torch.randn(9, width, requires_grad=True), torch.randn(9, width), torch.randn(9, classes + 1)
    loss = RegionBoxLoss()
    value = loss([[x], [torch.zeros_like(logits)]], [[y], [logits]])
    assert value.item() == pytest.approx(box_loss(x.detach(), y, logits), rel=1e-5)
    assert loss([[y], [logits]], [[y], [logits]]).item() == 0
    value.backward()
    assert (x.grad != 0).sum() == 9 * 4
    background = torch.zeros(9, classes + 1)
    background[:, -1] = 50
    assert loss([[x], [logits]], [[y], [background]]).item() < 1e-10
    with pytest.raises(ConfigError, match='RegionBoxLoss needs'):
        loss([[torch.zeros(9, 8)], [logits]], [[torch.zeros(9, 8)], [logits]])


def test_nothing_is_left_on_a_detector() -> None:
    model: nn.Module = nn.Linear(2, 2)
    recorder = OutputRecorder(model, {'': 'jobs.x.mimic_name'})
    recorder.start()
    output = model(torch.ones(1, 2))
    outputs = recorder.stop()
    assert recorder.regions == [] and torch.equal(outputs[''][0], output)
    assert recorder.on_regions(outputs, []) is outputs
