"""Backbones."""
from mmbignas.models.backbones.big_mobilenet import BigMobileNet
from mmbignas.models.backbones.big_regnet import BigRegNet
from mmbignas.models.backbones.big_resnet import BigResNet

__all__ = ['BigMobileNet', 'BigRegNet', 'BigResNet']
