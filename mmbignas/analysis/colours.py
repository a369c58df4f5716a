"""The colours of all pictures."""
from __future__ import annotations

from collections.abc import Iterable

from mmbignas.space import ImageSize

# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ('#E69F00', '#56B4E9', '#009E73', '#F0E442', '#0072B2', '#D55E00', '#CC79A7', '#000000')
ORANGE, SKY, GREEN, _, BLUE, VERMILION, PURPLE, BLACK = COLOURS
MARK_COLOURS = (VERMILION, PURPLE)
SIZE_COLOURS = (BLUE, ORANGE, GREEN, SKY, PURPLE)


def size_colours(sizes: Iterable[ImageSize]) -> dict[ImageSize, str]:
    """A colour for each image size, ascending by area; after five, they start again."""
    ascending = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    return {size: SIZE_COLOURS[index % len(SIZE_COLOURS)] for index, size in enumerate(ascending)}
