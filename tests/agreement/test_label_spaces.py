"""Classes of data sets, heads and checkpoints are the same, by number and by names, or the differing ones are named."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.dataset import BaseDataset
from mmengine.hub import get_config
from torch import nn

from mmbignas.agreement.label_spaces import checkpoint_lines, difference, heads_of, label_lines
from mmbignas.data.repeatable_loader import SeededDraws
from tests.small_models import build, retinanet

TRAIN, VAL = 'train_dataloader.dataset', 'val_dataloader.dataset'


class Plain(BaseDataset):
    """Six items without files, with labels 0 to 2."""

    def load_data_list(self) -> list[dict[str, Any]]:
        return [dict(label=number % 3, img_path='x') for number in range(6)]

    def get_cat_ids(self, index: int) -> list[int]:
        return [self.get_data_info(index)['label']]


def plain(classes: Any = ('a', 'b', 'c'), **metainfo: Any) -> Plain:
    return Plain(metainfo=dict(metainfo, **({} if classes is None else dict(classes=classes))))


def model(**heads: int) -> nn.Module:
    """A model with heads of these numbers of classes, by path."""
    top = nn.Module()
    for path, count in heads.items():
        parent = top
        for name in path.split('__'):
            if name not in dict(parent.named_children()):
                parent.add_module(name, nn.Module())
            parent = parent.get_submodule(name)
        parent.num_classes = count
    return top


def lines(network: nn.Module, *datasets: Any) -> list[str]:
    return list(label_lines(network, dict(zip((TRAIN, VAL), datasets))))


@pytest.mark.parametrize(('other', 'text'), [
    (('a', 'c'), "has 2 instead of 3, lacks 'b' (('a', 'c'))"),
    (('a', 'c', 'b'), "has another order: label 1 is 'c' instead of 'b' (('a', 'c', 'b'))"),
    (['a', 'b', 'C'], "lacks 'c', has also 'C' (('a', 'b', 'C'))"),
    (('a', 'b', 'c', 'd'), "has 4 instead of 3, has also 'd' (('a', 'b', 'c', 'd'))")])
def test_validation_of_other_classes(other, text):
    assert lines(model(head=3), plain(), plain(other)) == [f'{VAL}: classes must be those of {TRAIN}, {text}']


@pytest.mark.parametrize('classes', [('a', 'b', 'c'), ['a', 'b', 'c'], None])
def test_the_same_classes_or_none_pass(classes):
    own = model(detector__bbox_head=3, rpn_head=1, backbone=1000, reid__head=380)
    assert lines(own, plain(), plain(classes)) == []


WRAPPERS = {
    '': lambda own: own,
    '.dataset': lambda own: DATASETS.build(dict(type='RepeatDataset', dataset=own, times=2)),
    '.datasets[1]': lambda own: DATASETS.build(dict(type='ConcatDataset', datasets=[plain(), own])),
    '.dataset ': lambda own: DATASETS.build(dict(type='ClassBalancedDataset', dataset=own, oversample_thr=.1)),
    '.dataset  ': lambda own: DATASETS.build(dict(type='MultiImageMixDataset', dataset=own, pipeline=[])),
    '.dataset   ': lambda own: DATASETS.build(
        dict(type='mmpretrain.KFoldDataset', dataset=dict(type=Plain, metainfo=own.metainfo))),
    '.datasets[1].dataset': lambda own: torch.utils.data.ConcatDataset(
        [plain(), DATASETS.build(dict(type='RepeatDataset', dataset=own, times=2))]),
    ' ': lambda own: SeededDraws(own)}


@pytest.mark.parametrize('place', WRAPPERS)
def test_classes_within_wrappers(place):
    found = lines(model(head=3), plain(), WRAPPERS[place](plain(('a', 'c', 'b'))))
    assert [line.partition(': ')[0] for line in found] == [VAL + place.strip()]
    assert "label 1 is 'c' instead of 'b'" in found[0]


def test_heads_of_one_stage_and_classifier():
    assert heads_of(build(retinanet())) == dict(bbox_head=3)
    assert lines(build(retinanet()), plain(('a', 'b'))) == [
        f"model.bbox_head.num_classes must be 2, the number of classes of {TRAIN} (('a', 'b')), got 3"]
    assert lines(model(head=80), plain(), plain()) == [
        f"model.head.num_classes must be 3, the number of classes of {TRAIN} (('a', 'b', 'c')), got 80"]


def test_heads_of_a_cascade():
    """Two-stage, with a list of heads: all of them, and not the RPN's."""
    cfg = get_config('mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py').model
    cfg.backbone.init_cfg = None
    with torch.device('meta'):
        network = MODELS.build(cfg)
    expected = [f'roi_head.{kind}_head.{stage}' for kind in ('bbox', 'mask') for stage in range(3)]
    assert heads_of(network) == dict.fromkeys(expected, 80)
    assert [line.partition(' ')[0] for line in lines(network, plain())] == [f'model.{path}.num_classes'
                                                                           for path in expected]
    assert lines(network, plain([f'{number}' for number in range(80)])) == []


def test_what_means_no_list_of_names():
    found = lines(model(), plain('cell'))
    assert found == [f"{TRAIN}.metainfo.classes must be a list or tuple of names, such as ('cell', ), or a file with "
                     "one a line, got 'cell'"]
    assert lines(model(), plain(None, CLASSES=('a', 'b'))) == [
        f"{TRAIN}.metainfo must have classes, not CLASSES, which are not read: ('a', 'b')"]


def test_where_numbers_may_differ():
    """Of a panoptic data set, each head has a part; where classes are found by their names, any will do."""
    assert lines(model(bbox_head=2), plain(thing_classes=('a', 'b'))) == []
    described = model(bbox_head=2)
    described.language_model = nn.Identity()
    assert lines(described, plain(), plain(('d', ))) == []
    assert lines(model(head=3), object(), plain()) == []


def test_classes_of_a_checkpoint():
    datasets = {'test_dataloader.dataset': WRAPPERS['.datasets[1]'](plain())}
    assert list(checkpoint_lines(['a', 'b', 'c'], 'x.pth', datasets)) == []
    assert list(checkpoint_lines(None, 'x.pth', datasets)) == []
    found = list(checkpoint_lines(['b', 'a', 'c'], 'x.pth', datasets))
    assert found[1].startswith("test_dataloader.dataset.datasets[1]: classes must be those of x.pth, has another "
                               "order: label 0 is 'a' instead of 'b'")


def test_many_names_are_shortened():
    assert difference(list('abcdefgh'), ['x']).endswith("has also 'a', 'b', 'c', 'd', 'e' and 3 more")
