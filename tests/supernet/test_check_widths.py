"""A module that cannot take what the smallest subnet gives it is refused before training."""
import pytest
import torch
from torch import nn

from mmbignas import ConfigError
from mmbignas.supernet import Supernet
from mmbignas.supernet.check_widths import check_widths
from tests.small_classifiers import big_regnet, classifier, cls_head, regnet_classifier, width_up_to
from tests.small_models import big_fpn, build, retinanet
from tests.toy import ToyModel


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


def test_a_layer_that_is_wider_than_what_it_is_given_is_refused():
    """Torch would say so of a plain one; a dynamic one would never train the rest."""
    check_widths(Supernet(build(regnet_classifier())))
    with pytest.raises(ConfigError, match=r'model: in_channels of head.fc must be 64, .*, got 640$'):
        check_widths(Supernet(build(classifier(big_regnet(), cls_head(width_up_to(640))))))
    with pytest.raises(ConfigError, match=r'model: in_channels of neck.lateral_convs.2.conv must be 40, .*, got 48$'):
        check_widths(supernet(big_fpn(in_channels=[32, 32, 48])))


class OfItsOwnSize(ToyModel):
    """A head that sees the whole of a large image, behind a normalisation of one channel a group."""

    def __init__(self, groups):
        super().__init__()
        self.norm, self.whole = nn.GroupNorm(groups, 8), nn.Conv2d(8, 4, 96)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.norm(self.spread(inputs).mean((2, 3), keepdim=True))
        return self.whole(self.spread(inputs))

    def spread(self, inputs):
        return inputs[:, :1].repeat(1, 8, 1, 1)


def test_images_of_the_size_that_a_model_is_for():
    """Of one image, a normalisation would be left with a single value; of small ones, nothing comes through."""
    supernet_of = Supernet(OfItsOwnSize(groups=8))
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        nn.GroupNorm(8, 8)(torch.zeros(1, 8, 1, 1))
    check_widths(supernet_of, (96, 128))
    with pytest.raises(ConfigError, match='^model: whole does not take images, whatever the subnet .*Kernel size'):
        check_widths(supernet_of)
