"""What a written network computes, beside what the model computes."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmbignas.errors import ConfigError, MismatchError
from mmbignas.export.box_comparison import BoxCheck, Run

TOLERANCE = 1e-3  # of the greatest output; beyond it, it is another network


@dataclass(frozen=True)
class ExportCheck:
    """What was written, and how exact it is.

    Args:
        path: the file.
        size: bytes of the file.
        params: parameters of the model.
        outputs: names of the outputs, in order.
        batches: numbers of images that it was run with.
        max_abs_diff: the greatest difference of a raw output from the model's own.
        max_abs_output: the greatest raw output.
        boxes: for a file with boxes, how the detections compare.
    """

    path: str
    size: int
    params: int
    outputs: list[str]
    batches: list[int]
    max_abs_diff: float
    max_abs_output: float
    boxes: BoxCheck | None = None


@torch.no_grad()
def compare_raw(network: Run, run: Run, batches: Iterable[Tensor]) -> tuple[float, float]:
    """Compare the raw outputs of two networks.

    Args:
        network: computes the outputs of the model for images ``(N, C, H, W)``.
        run: those of the exported network.
        batches: the images.

    Returns:
        tuple: the greatest difference, and the greatest output of the model.

    Raises:
        ConfigError: when the model's outputs are not finite.
        MismatchError: when outputs differ by more than a thousandth of the greatest one.
    """
    worst = greatest = torch.zeros((), dtype=torch.float64)
    for images in batches:
        for ours, theirs in zip(network(images), run(images), strict=True):
            worst = torch.maximum(worst, (ours.double() - theirs.double()).abs().max())  # keeps what is not a number
            greatest = torch.maximum(greatest, ours.double().abs().max())
    if not greatest.isfinite():
        raise ConfigError('model: its outputs for random images are not finite')
    if not worst <= TOLERANCE * greatest:
        raise MismatchError(f'the exported network computes something else than the model: outputs differ by '
                            f'{worst:.3g}, and are at most {greatest:.3g}')
    return float(worst), float(greatest)
