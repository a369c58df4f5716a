"""Networks; each class is a supernet when an element is a space, and one plain network when all are numbers."""
from mmbignas.models.backbones import BigResNet
from mmbignas.models.dense_heads import BigRetinaHead
from mmbignas.models.necks import BigFPN
from mmbignas.models.searchable import SearchableBlocks

__all__ = ['BigFPN', 'BigResNet', 'BigRetinaHead', 'SearchableBlocks']
