"""Networks; each class is a supernet when an element is a space, and one plain network when all are numbers."""
from mmbignas.dependencies import installed
from mmbignas.models.backbones import BigMobileNet, BigRegNet, BigResNet
from mmbignas.models.checkpointing import checkpointed
from mmbignas.models.dense_heads import BigRetinaHead, BigRPNHead
from mmbignas.models.necks import BigFPN
from mmbignas.models.roi_heads import BigBBoxHead, BigRoIExtractor
from mmbignas.models.searchable import SearchableBlocks

__all__ = ['BigBBoxHead', 'BigFPN', 'BigMobileNet', 'BigRPNHead', 'BigRegNet', 'BigResNet', 'BigRetinaHead',
           'BigRoIExtractor', 'SearchableBlocks', 'checkpointed']

if installed('mmpretrain'):
    from mmbignas.models.heads import BigLinearClsHead  # noqa: F401

    __all__.append('BigLinearClsHead')
