"""Building blocks of the networks; each is dynamic in a supernet and plain in a subnet."""
from mmbignas.models.blocks.basic_block import BigBasicBlock
from mmbignas.models.blocks.inverted_bottleneck import BigFinalConv, BigInvertedBottleneck
from mmbignas.models.blocks.regnet_bottleneck import BigRegNetBottleneck
from mmbignas.models.blocks.squeeze_excite import SqueezeExcite
from mmbignas.models.blocks.stem import BigStem
from mmbignas.models.blocks.towers import ConvTower, LinearTower
from mmbignas.models.layers import middle_width, middle_widths

__all__ = ['BigBasicBlock', 'BigFinalConv', 'BigInvertedBottleneck', 'BigRegNetBottleneck', 'BigStem', 'ConvTower',
           'LinearTower', 'SqueezeExcite', 'middle_width', 'middle_widths']
