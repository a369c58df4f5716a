"""Networks; each class is a supernet when an element is a space, and one plain network when all are numbers."""
from mmbignas.dependencies import installed
from mmbignas.models.backbones import BigMobileNet, BigRegNet, BigResNet
from mmbignas.models.checkpointing import checkpointed
from mmbignas.models.dense_heads import BigRetinaHead
from mmbignas.models.necks import BigFPN
from mmbignas.models.searchable import SearchableBlocks

__all__ = ['BigFPN', 'BigMobileNet', 'BigRegNet', 'BigResNet', 'BigRetinaHead', 'SearchableBlocks',
           'checkpointed']

if installed('mmpretrain'):
    from mmbignas.models.heads import BigLinearClsHead  # noqa: F401

    __all__.append('BigLinearClsHead')
