"""Building blocks of the networks; each is dynamic in a supernet and plain in a subnet."""
from mmbignas.models.blocks.basic_block import BigBasicBlock, middle_width, middle_widths
from mmbignas.models.blocks.conv_tower import ConvTower
from mmbignas.models.blocks.stem import BigStem

__all__ = ['BigBasicBlock', 'BigStem', 'ConvTower', 'middle_width', 'middle_widths']
