"""Ordinary networks as graphs that torch alone can run."""
from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmbignas.export.comparison import ExportCheck, compare_raw
from mmbignas.export.network import TRACED_BATCH, Network, describe, trace
from mmbignas.utils.files import check_new_file, write_file

FACTS = 'mmbignas.json'


def export_pt2(model: nn.Module, path: str | Path, image_size: Sequence[int], dynamic_batch: bool = True,
               classes: Sequence[str] | None = None, resize: Mapping[str, Any] | None = None,
               overwrite: bool = False) -> ExportCheck:
    """Write a model as a file of ``torch.export``, and check it.

    ``torch.export.load(path).module()`` then takes images, float32 ``(N, C, H, W)`` and already normalised, and gives
    the raw outputs as a flat tuple; this package and MMDetection are not needed. The extra file ``mmbignas.json`` in it
    says what the images have to be like, see :func:`describe`, and names the ``outputs``.

    Args:
        model: an ordinary model, trained; it is not changed.
        path: the file, ``.pt2``.
        image_size: height and width in pixels, after padding to the size divisor.
        dynamic_batch: take any number of images; otherwise one at a time.
        classes: names of the classes.
        resize: how images are scaled before they are padded, for the extra file.
        overwrite: replace a file that is there.

    Raises:
        ConfigError: for a model, image size or file that is not allowed.
        MismatchError: when the graph computes something else than the model; nothing is written then.
    """
    path = check_new_file(path, '.pt2', overwrite)
    network = Network(model, image_size)
    program = trace(network, (network.random_images(TRACED_BATCH if dynamic_batch else 1), ), dynamic_batch)
    facts = dict(describe(network, classes, resize), outputs=network.output_names)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={FACTS: json.dumps(facts)})
    batches = [1, 2] if dynamic_batch else [1]
    buffer.seek(0)
    diff, greatest = compare_raw(network, torch.export.load(buffer).module(), map(network.random_images, batches))
    content = buffer.getvalue()
    write_file(path, content)
    return ExportCheck(str(path), len(content), sum(parameter.numel() for parameter in network.parameters()),
                       network.output_names, batches, diff, greatest)
