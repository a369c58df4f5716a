"""A data set that cannot read its annotations: one line with the file, and what is wrong there."""
from __future__ import annotations

import json
from typing import Any

import pytest
from mmdet.registry import DATASETS

from mmbignas.errors import ConfigError
from mmbignas.utils.data_errors import data_errors_explained
from tests.agreement.small_data import write_coco


def message_of(cfg: Any) -> str:
    with pytest.raises(ConfigError) as error, data_errors_explained():
        DATASETS.build(cfg)
    assert '\n' not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize('wrap', [lambda cfg: cfg, lambda cfg: dict(type='RepeatDataset', times=2, dataset=cfg)])
def test_fields_that_are_missing(tmp_path, wrap):
    cfg = write_coco(tmp_path, without=('area', ))
    assert message_of(wrap(cfg)) == f"{tmp_path}/a.json: an image or annotation has no 'area', which CocoDataset needs"
    cfg = write_coco(tmp_path)
    content = json.loads((tmp_path / 'a.json').read_text())
    del content['images'][2]['height']
    (tmp_path / 'a.json').write_text(json.dumps(content))
    assert message_of(wrap(cfg)).endswith("a.json: an image or annotation has no 'height', which CocoDataset needs")


def test_no_image_with_one_of_the_classes(tmp_path):
    """The default classes of COCO hold where there are none under the right name."""
    cfg = dict(write_coco(tmp_path), metainfo=dict(CLASSES=('cell', )), filter_cfg=dict(filter_empty_gt=True))
    message = message_of(cfg)
    assert message.startswith(f"{tmp_path}/a.json: no image is left for CocoDataset by its filter_cfg and "
                              "metainfo.classes, ('person', 'bicycle', ")
    assert message.endswith("; its categories are ('cell', 'rod', 'dot'); metainfo has CLASSES, which must be classes: "
                            "('cell',)")


def test_a_file_that_is_no_json(tmp_path):
    cfg = write_coco(tmp_path)
    (tmp_path / 'a.json').write_text('{"images": [')
    assert message_of(cfg).startswith(f'{tmp_path}/a.json: cannot be read by CocoDataset, JSONDecodeError: ')


def test_other_errors_pass_through():
    for error in (KeyError('area'), ConfigError('x'), RuntimeError('y')):
        with pytest.raises(type(error)) as found, data_errors_explained():
            raise error
        assert found.value is error
