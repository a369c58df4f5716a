"""Annotation files name their categories as the config does and have what metrics read, or the differing is named."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmdet.evaluation.metrics import CocoMetric
from mmengine.evaluator import Evaluator

from mmbignas.agreement.annotations import (
    categories_of,
    category_lines,
    image_lines,
    metric_categories,
    metric_file_lines,
)
from mmbignas.utils.coco_files import read_categories
from tests.agreement.small_data import NAMES, coco

KEY = 'train_dataloader.dataset'


def found_in(**stages):
    return list(category_lines({stage: [own for dataset in datasets for own in categories_of(dataset, KEY)]
                                for stage, datasets in stages.items()}))


@pytest.mark.parametrize('names', [NAMES, ('other', *NAMES, 'more'), NAMES[:2]])
def test_files_that_agree(tmp_path, names):
    """A file may have more categories, and lack the last ones."""
    dataset = coco(tmp_path, names)
    # What the labels are by MMDetection, which this is about.
    assert [dataset.metainfo['classes'][label] for label in dataset.cat2label.values()] == list(NAMES)[:len(
        dataset.cat2label)]
    assert found_in(train=[dataset]) == []


def test_another_order(tmp_path):
    """MMDetection numbers categories in the order of the file."""
    dataset = coco(tmp_path, ('rod', 'cell', 'dot'))
    label = dataset.get_data_info(0)['instances'][0]['bbox_label']
    assert (label, dataset.metainfo['classes'][label]) == (0, 'cell')  # of a rod
    line, = found_in(train=[dataset])
    assert line == (f"{KEY}.ann_file: {dataset.ann_file} must have its categories in the order of "
                    "metainfo.classes, by which MMDetection numbers them; it has another order: label 0 is "
                    "'rod' instead of 'cell'")


@pytest.mark.parametrize('names', [('cell', 'rods', 'dot'), ('cell', 'rod', 'Dot')])
def test_one_name_written_otherwise(tmp_path, names):
    line, = found_in(train=[coco(tmp_path, names)])
    missing, = set(NAMES) - set(names)
    other, = set(names) - set(NAMES)
    assert line.endswith(f'it lacks {missing!r} and has {other!r} instead')


def test_no_name_at_all(tmp_path):
    line, = found_in(train=[coco(tmp_path, ('x', 'y'))])
    assert line.endswith("it has none of them and has 'x', 'y' instead")


def test_a_category_in_the_middle_is_lacking(tmp_path):
    """While all files lack the same, metrics are right, and the names of labels are wrong nonetheless."""
    part, whole = coco(tmp_path / 'part', ('cell', 'dot')), coco(tmp_path / 'whole')
    lines = found_in(train=[part], val=[part])
    assert len(lines) == 2 and lines[0].endswith(
        "it lacks 'rod', so that label 1 is 'dot' there and 'rod' in metainfo.classes")
    assert len(found_in(train=[whole], val=[part])) == 1


def test_several_data_sets_may_have_different_parts_of_the_classes(tmp_path):
    assert found_in(train=[coco(tmp_path / 'a', ('cell', 'rod', 'x')), coco(tmp_path / 'b')]) == []


def test_classes_of_a_name_within_another(tmp_path):
    """A file of names with the classes chosen by their ids, as of LVIS, is left alone."""
    dataset = coco(tmp_path)
    dataset.cat2label = {10: 0, 20: 1, 30: 2}
    dataset._metainfo['classes'] = ('Cell', 'Rod', 'Dot')
    assert found_in(train=[dataset]) == []


def evaluator_of(dataset, **options):
    evaluator = Evaluator([CocoMetric(ann_file=dataset.ann_file, **options)])
    evaluator.dataset_meta = dataset.metainfo
    return evaluator


def test_files_of_metrics(tmp_path):
    evaluator = evaluator_of(coco(tmp_path, ('rod', 'cell', 'dot')))
    own, = metric_categories(evaluator, 'val_evaluator')
    assert (own.key, own.by_label, own.shifted) == ('val_evaluator.ann_file', ('rod', 'cell', 'dot'), True)
    assert list(metric_file_lines(evaluator, 'val_evaluator')) == []
    found = list(metric_file_lines(evaluator_of(coco(tmp_path / 'b'), metric=['bbox', 'segm']), 'val_evaluator'))
    assert found == ["val_evaluator.ann_file: annotation 0 must have 'segmentation', got ['area', 'bbox', "
                     "'category_id', 'id', 'image_id', 'iscrowd']"]


def test_fields_that_cocos_evaluation_reads(tmp_path):
    found = list(metric_file_lines(evaluator_of(coco(tmp_path, without=('iscrowd', ))), 'val_evaluator'))
    assert [line.partition(', got')[0] for line in found] == [
        "val_evaluator.ann_file: annotation 0 must have 'iscrowd'"]


def test_images_that_are_missing_or_empty(tmp_path):
    dataset = coco(tmp_path, images=6)
    assert list(image_lines(dataset, KEY)) == []
    for number in (1, 2, 3, 4):
        (tmp_path / f'{number}.png').write_bytes(b'')
    (tmp_path / '4.png').unlink()
    expected = ', '.join(str(tmp_path / f'{number}.png') for number in (1, 2, 3))
    assert list(image_lines(dataset, KEY)) == [
        f'{KEY}: images must be files that are not empty, got {expected} and 1 more']
    dataset.pipeline.transforms[0].backend_args = dict(backend='petrel')
    assert list(image_lines(dataset, KEY)) == []
    dataset.pipeline.transforms.pop(0)  # so they come from elsewhere
    assert list(image_lines(dataset, KEY)) == []


@pytest.mark.parametrize(('text', 'expected'), [
    ('{"categories": [{"id": 1, "name": "a"}], "images": []}', {1: 'a'}),
    ('{"info": {"categories": [1]}, "images": [{"x": "\\"categories\\": [2]"}], "categories" :\n [ {"id": 2, "name": '
     '"\u00fc"}, {"id": 1, "name": "b"}]}', {2: '\u00fc', 1: 'b'}),
    ('{"categories": [{"id": 1, "name": "a"}], "categories": [{"id": 2, "name": "b"}]}', {2: 'b'}),
    ('{"categories": [{"id": 1}]}', None), ('{"categories": []}', None), ('', None), ('{"categories": [', None)])
def test_categories_without_the_rest_of_the_file(tmp_path, text, expected):
    file = tmp_path / 'a.json'
    file.write_text(text, encoding='utf-8')
    found = read_categories(str(file))
    assert found == expected and list(found or ()) == list(expected or ())


def test_categories_that_are_long(tmp_path):
    """More than what is read at once."""
    names = {number: f'name {number} {"x" * 50}' for number in range(3000)}
    Path(tmp_path, 'a.json').write_text(json.dumps(dict(
        categories=[dict(id=own, name=name) for own, name in names.items()], images=[0] * 1000)))
    assert read_categories(str(tmp_path / 'a.json')) == names
    assert read_categories(str(tmp_path / 'b.json')) is None
