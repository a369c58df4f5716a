"""One pass of an iteration."""
from __future__ import annotations

from dataclasses import dataclass

from mmbignas.space import ImageSize, Subnet

ATTENTIVE = ('best_up', 'worst_up')


@dataclass(frozen=True)
class SubnetPass:
    """One forward and backward pass of an iteration.

    Args:
        iteration: number of the iteration.
        index: number of the pass in the iteration.
        name: what the subnet is called in logs, e.g. ``max`` or ``random0``.
        subnet: the subnet that is trained.
        is_max: whether it is the largest one, at any image size.
        image_size: height and width in pixels that the images are resized to; ``None`` for the images as they are.
        candidates: the passes of which the loop trains one in place of this, which is like the first of them; empty
            where nothing is left to choose. Hook points see the chosen one.
        highest: whether the one with the highest loss is trained, not that with the lowest.
    """

    iteration: int
    index: int
    name: str
    subnet: Subnet
    is_max: bool
    image_size: ImageSize | None = None
    candidates: tuple[SubnetPass, ...] = ()
    highest: bool = False
