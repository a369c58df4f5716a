"""Classes that keep widths in attributes of Python, in small networks: groups, and subnets against cut networks."""
from __future__ import annotations

import pytest
import torch
from mmdet.models.backbones.res2net import Bottle2neck
from mmdet.models.dense_heads.tood_head import TaskDecomposition
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmpretrain.models.utils.attention import MultiheadAttention
from torch import nn

from mmbignas.elastic.parts import Parts
from mmbignas.elastic.planning import traced
from mmbignas.elastic.verification import verified
from tests.elastic.groups import check_groups
from tests.elastic.networks import Toy, images, scrambled


class Attended(nn.Module):
    """Attention of MMPretrain between the pixels of an image."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.a = nn.Linear(3, 10)
        self.attention = MultiheadAttention(width, heads, input_dims=10, v_shortcut=heads == 1)
        self.out = nn.Linear(width, 2)

    def forward(self, x):
        return self.out(self.attention(self.a(x.flatten(2).transpose(1, 2)))).mean(1)


class Decomposed(nn.Module):
    """TOOD's task decomposition, whose weights are products of attention and parameters."""

    def __init__(self, norm_cfg=None) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)])
        self.task = TaskDecomposition(8, 2, 2, norm_cfg=norm_cfg)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        features = []
        for layer in self.layers:
            x = layer(x).relu()
            features.append(x)
        return self.out(self.task(torch.cat(features, 1)))


class Split(nn.Module):
    """A block of Res2Net; ``stage_type`` says whether each part is added to the one before."""

    def __init__(self, stage_type: str) -> None:
        super().__init__()
        self.a, self.out = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 2, 1)
        downsample = nn.Conv2d(16, 16, 1) if stage_type == 'stage' else None
        self.block = Bottle2neck(16, 4, scales=4, base_width=64, base_channels=16, stage_type=stage_type,
                                 downsample=downsample)

    def forward(self, x):
        return self.out(self.block(self.a(x)))


class Regions(nn.Module):
    """Regions on three levels, of which those of the example meet the first one alone."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(3, 8, 3, 2 ** level, 1) for level in range(3))
        self.extractor = SingleRoIExtractor(dict(type='RoIAlign', output_size=2, sampling_ratio=1), 8, [1, 2, 4])
        self.out = nn.Conv2d(8, 2, 1)
        self.size = 6.

    def forward(self, x):
        rois = x.new_tensor([[0, 1, 1, self.size, self.size], [1, 0, 0, self.size - 1, self.size]])
        return self.out(self.extractor([level(x) for level in self.levels], rois))


def test_levels_without_regions_are_as_wide_as_the_others():
    model = Toy(Regions()).eval()
    batch, plan = traced(model, images())
    assert [group.size for group in plan.groups.values()] == [8], plan.frozen
    parts = Parts(model, plan)
    parts.apply_widths(dict.fromkeys(plan.groups, 3))
    for size in (6., 150., 400.):  # one level after the other
        model.net.size = size
        assert model(torch.randn(2, 3, 8, 8)).shape == (2, 2, 2, 2)


# Name -> network, sizes of its groups.
CASES = {
    'one head': (lambda: Attended(1, 12), [10, 12]),
    'several heads': (lambda: Attended(3, 12), [3, 4, 10, 12]),
    'task decomposition': (Decomposed, [8, 8]),
    'task decomposition with norms': (lambda: Decomposed(dict(type='GN', num_groups=4)), [4, 8]),
    'parts that are added': (lambda: Split('normal'), [16, 16, 16]),
    'parts by themselves': (lambda: Split('stage'), [16] * 6),
}


@pytest.mark.parametrize('name', CASES)
def test_widths_in_attributes_follow(name):
    make, sizes = CASES[name]
    torch.manual_seed(0)
    model = scrambled(Toy(make())).eval()
    batch, found = traced(model, images())
    plan = verified(model, found, batch)
    assert list(plan.groups) == list(found.groups), plan.frozen
    check_groups(model, plan, batch, sizes)
