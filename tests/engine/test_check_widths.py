"""A module that cannot take what the smallest subnet gives it is refused before training."""
import pytest

from mmbignas import ConfigError
from mmbignas.engine.checks import check_widths
from mmbignas.supernet import Supernet
from tests.small_models import big_fpn, build, retinanet


def supernet(neck):
    return Supernet(build(retinanet(neck=neck)))


def test_a_model_that_fits_passes_and_is_left_as_it_was():
    model = supernet(big_fpn())
    model.apply(model.space.middle())
    model.model.train()
    check_widths(model)
    assert model.current == model.space.middle()
    assert all(module.training for module in model.model.modules())


def test_a_plain_neck_behind_a_searched_backbone_is_refused():
    message = r'neck\.lateral_convs\.0\S* does not take the smallest subnet .*dict\(space='
    with pytest.raises(ConfigError, match=message):
        check_widths(supernet(big_fpn(out_channel=[24, 24])))


def test_a_neck_without_a_choice_may_be_given_as_a_space():
    check_widths(supernet(big_fpn(out_channel=dict(space=dict(min=[24, 24], max=[24, 24])))))
