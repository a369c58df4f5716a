"""Which images a config calibrates with, and how often they are loaded."""
import pytest
import torch

from mmbignas.data.calibration_images import CalibrationImages
from mmbignas.errors import ConfigError
from tests.toy import calibration_batches, dataloader

HOOK = dict(type='mmbignas.BNCalibrationHook', num_images=7)
TRAIN = dataloader(24)


def quiet(text):
    pass


@pytest.mark.parametrize(('hooks', 'typed', 'expected'), [
    ([HOOK], None, 7), ([HOOK], 3, 3), ([HOOK], 0, None), ([], None, None), ([], 5, 5),
    ([dict(type='mmbignas.BNCalibrationHook')], None, 2048)])
def test_what_a_config_says(hooks, typed, expected):
    images = CalibrationImages.from_config(dict(custom_hooks=hooks, train_dataloader=TRAIN), typed)
    assert (None if images is None else images.num_images) == expected
    assert images is None or images.dataloader is TRAIN


def test_images_of_their_own():
    own = dataloader(12)
    images = CalibrationImages.from_config(dict(custom_hooks=[dict(HOOK, dataloader=own)]))
    assert images.dataloader is own


@pytest.mark.parametrize(('cfg', 'typed', 'message'), [
    (dict(train_dataloader=TRAIN), -1, '^--calib-images must be an integer >= 0, got -1$'),
    (dict(custom_hooks=[dict(HOOK, num_images=-1)], train_dataloader=TRAIN), None, 'BNCalibrationHook.num_images must'),
    ({}, 5, '^BNCalibrationHook.dataloader must be the config of a dataloader.* as there is no train_dataloader, got'),
    (dict(train_dataloader=5), 5, '^train_dataloader must be the config of a dataloader, a dict with dataset, got 5$')])
def test_what_is_refused(cfg, typed, message):
    with pytest.raises(ConfigError, match=message):
        CalibrationImages.from_config(cfg, typed, '--calib-images')


def test_loaded_once_and_kept():
    images = CalibrationImages(12).resolve(dict(train_dataloader=TRAIN))
    kept, loaded = images.batches(quiet), images.load(quiet)
    assert images.batches(quiet) is kept and loaded is not kept
    for own in (kept, loaded):
        for batch, expected in zip(own, calibration_batches(), strict=True):
            assert torch.equal(batch['inputs'], expected['inputs'])
