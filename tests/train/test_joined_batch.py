"""Training in two and three processes is training in one on the joined batch, in 64-bit numbers."""
import copy
import os

import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.data import Dataset

from mmbignas.distill import DistillHook
from mmbignas.errors import ConfigError
from mmbignas.models import BigRetinaHead
from mmbignas.ops import DynamicSyncBatchNorm2d
from mmbignas.registry import MODELS
from tests.distributed import run_processes
from tests.small_models import big_fpn, big_resnet, big_retina_head, build, retinanet, samples
from tests.toy import PassRecorder, ToyDataset, ToyModel, ToyPreprocessor, build_runner

SIZES = [2, 3]  # processes
IMAGES = 12  # of each batch of all processes together
CASES = dict(
    distilled=dict(size=2 * IMAGES, distilled='head'),
    accumulated=dict(size=4 * IMAGES, optim_wrapper=dict(accumulative_counts=2, clip_grad=dict(max_norm=.1))),
    # The last batches are smaller: with 13 images, DefaultSampler takes the first ones twice.
    uneven=dict(size=IMAGES + 1))


class DoublePreprocessor(ToyPreprocessor):
    """Gives 64-bit images."""

    def forward(self, data, training=False):
        data = super().forward(data, training)
        return {**data, 'inputs': data['inputs'].double()}


class MeanDistance(nn.Module):
    """A distillation loss that is a mean over images."""

    def forward(self, student, teacher):
        return (student[0][0] - teacher[0][0]).square().mean()


MODELS.register_module('JoinedMeanDistance', module=MeanDistance)


def classifier():
    """The toy with synchronised normalisations, in 64-bit numbers."""
    model = ToyModel()
    model.data_preprocessor = DoublePreprocessor()
    for block in model.backbone.blocks:
        block[1] = DynamicSyncBatchNorm2d(8)
    return model.double()


class Detections(Dataset):
    """Images of noise, with boxes of which no two images have the same number."""

    metainfo = dict(classes=('a', 'b', 'c'))

    def __init__(self, size):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(255, (size, 3, 64, 64), generator=generator, dtype=torch.uint8)
        corners = torch.rand(size, 4, 2, generator=generator) * 30
        boxes = torch.cat([corners, corners + 10 + 20 * torch.rand(size, 4, 2, generator=generator)], -1)
        self.samples = samples([own[:1 + index % 4].tolist() for index, own in enumerate(boxes)])

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return dict(inputs=self.images[index], data_samples=copy.deepcopy(self.samples[index]))


class DoubleDetPreprocessor(DetDataPreprocessor):
    """Gives 64-bit images, of a moderate size."""

    def forward(self, data, training=False):
        data = super().forward(data, training)
        return {**data, 'inputs': data['inputs'].double() / 255 - .5}


def detector():
    """A RetinaNet supernet with synchronised normalisations, in 64-bit numbers."""
    sync = dict(type='SyncBN')
    torch.manual_seed(0)
    model = build(retinanet(big_resnet(norm_cfg=sync), big_fpn(norm_cfg=sync), big_retina_head(norm_cfg=sync)))
    model.data_preprocessor = DoubleDetPreprocessor()
    assert any(isinstance(module, DynamicSyncBatchNorm2d) for module in model.bbox_head.modules())
    return model.double()


def train(folder, world_size, model, dataset, optim_wrapper=None, distilled=None, collate='default_collate', rate=.1,
          round_up=True, images=IMAGES):
    """Train for one epoch; return what is left of it."""
    passes = PassRecorder()
    job = dict(output=dict(mimic_name=distilled, loss=dict(type='mmbignas.JoinedMeanDistance')))
    parallel = dict(launcher='pytorch', cfg=Config(dict(
        model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None)))) if world_size > 1 else {}
    loader = dict(dataset=dataset, batch_size=images // world_size, num_workers=0, collate_fn=dict(type=collate),
                  sampler=dict(type='DefaultSampler', shuffle=False, round_up=round_up))
    runner = build_runner(
        folder, model, hooks=[passes, *([DistillHook(job)] if distilled else [])], train_dataloader=loader,
        optim_wrapper={**dict(optimizer=dict(type='SGD', lr=rate, momentum=.9)), **(optim_wrapper or {})}, **parallel)
    runner.train()
    return dict(state=model.state_dict(), subnets=[(own.iteration, own.name, own.subnet.to_dict())
                                                   for own in passes.passes])


def train_toy(folder, world_size, size, joined=1, **kwargs):
    """Train the classifier; ``joined`` is the number of processes whose data this one has."""
    data = ToyDataset(size)
    again = -size % joined
    data.images, data.labels = (torch.cat([own, own[:again]]) for own in (data.images, data.labels))
    return train(folder, world_size, classifier(), data, **kwargs)


def train_detector(folder, world_size):
    return train(folder, world_size, detector(), Detections(12), collate='pseudo_collate', rate=1e-3, images=6,
                 distilled='bbox_head.retina_cls')


def everything(rank, folder, world_size):
    """All that this file looks at, in one start of the processes."""
    os.environ['LOCAL_RANK'] = str(rank)
    init_default_scope('mmdet')
    results = {name: train_toy(folder, world_size, **case) for name, case in CASES.items()}
    results['detector'] = train_detector(folder, world_size)
    with pytest.raises(ConfigError) as caught:  # 13 images: with round_up=False the first process has one more
        train_toy(folder, world_size, IMAGES + 1, round_up=False)
    return dict(results, error=str(caught.value))


@pytest.fixture(scope='module', params=SIZES)
def processes(request, tmp_path_factory):
    """What each process has in the end."""
    return run_processes(everything, str(tmp_path_factory.mktemp('run')), request.param, world_size=request.param)


def assert_same(processes, reference, tolerance):
    first = processes[0]
    for own in processes:
        assert own['subnets'] == first['subnets'] == reference['subnets']
        for name, value in own['state'].items():
            assert torch.equal(value, first['state'][name]), name  # the statistics of normalisations too
    for name, value in first['state'].items():
        torch.testing.assert_close(value, reference['state'][name], rtol=tolerance, atol=tolerance, msg=name)
    return first


@pytest.mark.parametrize('case', CASES)
def test_classifier(processes, case, tmp_path):
    reference = train_toy(tmp_path, 1, joined=len(processes), **CASES[case])
    first = assert_same([own[case] for own in processes], reference, 1e-10)
    moved = [not torch.equal(value, first['state'][name]) for name, value in classifier().state_dict().items()]
    assert sum(moved) > 10


def test_detector(processes, tmp_path, monkeypatch):
    """MMDetection divides by the number of positives and an epsilon, which each process adds to its share."""
    world_size, epsilon = len(processes), torch.finfo(torch.float32).eps
    get_targets = BigRetinaHead.get_targets
    monkeypatch.setattr(BigRetinaHead, 'get_targets', lambda *args, **kwargs: (
        *(targets := get_targets(*args, **kwargs))[:4], targets[4] + (world_size - 1) * epsilon))
    reference = train_detector(tmp_path, 1)
    # A third of the number of positives is a 32-bit number, a half of it is exact.
    assert_same([own['detector'] for own in processes], reference, 1e-10 if world_size == 2 else 1e-7)


def test_epochs_of_different_lengths_are_refused(processes):
    for own in processes:
        assert own['error'].startswith('train_dataloader: an epoch must have as many batches in each process, got '
                                       f'{", ".join(["2", "1", "1"][:len(processes)])} '
                                       '(DefaultSampler, 13 images here)')
