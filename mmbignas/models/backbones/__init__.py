"""Backbones."""
from mmbignas.models.backbones.big_resnet import BigResNet

__all__ = ['BigResNet']
