"""Ordinary networks as ONNX models."""
from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmbignas.dependencies import require
from mmbignas.export.box_comparison import compare_boxes
from mmbignas.export.comparison import ExportCheck, compare_raw
from mmbignas.export.detection import BOX_OUTPUTS, ONNX_TRANSLATIONS, DetectionNetwork
from mmbignas.export.network import TRACED_BATCH, Network, describe, trace
from mmbignas.utils.files import check_new_file, write_file
from mmbignas.utils.rules import integer, must_be

BATCH = 'batch'
MIN_OPSET = 18  # older ones torch does not write


def export(module: nn.Module | torch.export.ExportedProgram, inputs: tuple, **options: Any) -> bytes:
    """A module as an ONNX model for inputs of these shapes.

    Args:
        module: in eval mode and on the CPU, or its graph, which ``inputs`` then do not matter for.
        inputs: its arguments; nested inputs, and outputs, follow each other in the ONNX model.
        **options: of ``torch.onnx.export``.
    """
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of parts of torchvision, which no network here has
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            program = torch.onnx.export(module, inputs, dynamo=True, verbose=False, **options)
    finally:
        logger.setLevel(level)
    assert program is not None
    return program.model_proto.SerializeToString()


def export_onnx(model: nn.Module, path: str | Path, image_size: Sequence[int], boxes: bool = False,
                dynamic_batch: bool = True, opset: int | None = None, classes: Sequence[str] | None = None,
                resize: Mapping[str, Any] | None = None, overwrite: bool = False) -> ExportCheck:
    """Write a model as an ONNX file with nothing but standard operators, and check it in ONNX Runtime.

    The input ``images`` is float32 ``(N, C, H, W)``, already normalised. The file's ``metadata_props`` say how, each
    value as JSON, see :func:`describe`. The outputs are the raw ones, see :class:`Network`.

    With ``boxes`` there is a second input, ``image_sizes``, int64 ``(N, 2)``, height and width of each image without
    its padding, where its boxes end. The outputs then are those of :class:`DetectionNetwork`, ``boxes``, ``scores`` and
    ``labels``, as MMDetection predicts them for the same images in the same padding, before it scales them back. (It
    pads to the size divisor and no further; with more padding the raw outputs near the border are others, too.)

    Args:
        model: an ordinary model, trained; it is not changed.
        path: the file, ``.onnx``.
        image_size: height and width in pixels, after padding to the size divisor.
        boxes: decode boxes and suppress what is not the greatest in the graph.
        dynamic_batch: take any number of images; otherwise one at a time.
        opset: version of ONNX's operators, from 18; ``None`` for torch's choice.
        classes: names of the classes.
        resize: how images are scaled before they are padded, for the metadata.
        overwrite: replace a file that is there.

    Raises:
        ConfigError: for a model, image size, opset or file that is not allowed.
        DependencyError: when onnx, onnxscript or onnxruntime is missing.
        MismatchError: when the ONNX model computes something else than the model, or finds other boxes than
            MMDetection, ties of score apart; nothing is written then.
    """
    path = check_new_file(path, '.onnx', overwrite)
    onnx, _, runtime = (_require(package) for package in ('onnx', 'onnxscript', 'onnxruntime'))
    check_opset(opset, 'opset')
    raw = Network(model, image_size)
    detector = DetectionNetwork(raw) if boxes else None
    network = detector or raw

    def complete(images: Tensor) -> tuple[Tensor, ...]:
        return (images, detector.full_sizes(len(images))) if detector else (images, )

    program = trace(network, complete(raw.random_images(TRACED_BATCH if dynamic_batch else 1)), dynamic_batch)
    proto = onnx.load_from_string(export(
        program, (), input_names=network.input_names, output_names=network.output_names, opset_version=opset,
        custom_translation_table=ONNX_TRANSLATIONS))
    if opset not in (None, proto.opset_import[0].version):
        raise must_be('opset', f'nearer to {proto.opset_import[0].version}, where the exporter stays, or None', opset)
    _tidy(proto, describe(raw, classes, resize))
    onnx.checker.check_model(proto, full_check=True)

    batches = [1, 2] if dynamic_batch else [1]
    content = proto.SerializeToString()
    box_check = None
    first_raw = len(BOX_OUTPUTS) if boxes else 0
    diff, greatest = compare_raw(raw, lambda images: _run(runtime, content, *complete(images))[first_raw:],
                                 map(raw.random_images, batches))
    if detector:
        del proto.graph.output[first_raw:]  # they were there to be compared
        content = proto.SerializeToString()
        box_check = compare_boxes(detector, lambda *inputs: _run(runtime, content, *inputs), batches)
    write_file(path, content)
    return ExportCheck(str(path), len(content), sum(parameter.numel() for parameter in raw.parameters()),
                       [output.name for output in proto.graph.output], batches, diff, greatest, box_check)


def _require(package: str) -> Any:
    return require(package, 'exporting to ONNX', 'mmbignas[onnx]')


def check_opset(opset: int | None, key: str) -> None:
    """Make sure that ONNX files can be written with an opset, which messages call ``key``.

    Raises:
        ConfigError: when they cannot.
        DependencyError: when onnx is missing.
    """
    if opset is None:
        return
    integer(MIN_OPSET, _require('onnx').defs.onnx_opset_version()).or_none().check(opset, key)


def _tidy(proto: Any, facts: dict[str, Any]) -> None:
    """Name the batch size, and put facts about the network in place of those about how it was made."""
    graph = proto.graph
    del graph.value_info[:]
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del item.metadata_props[:]
    for value in (*graph.input, *graph.output):
        size = value.type.tensor_type.shape.dim[0]
        if size.dim_param:
            size.dim_param = BATCH
    del proto.metadata_props[:]
    for key, fact in facts.items():
        proto.metadata_props.add(key=key, value=json.dumps(fact))


def _run(runtime: Any, content: bytes, *inputs: Tensor) -> list[Tensor]:
    session = runtime.InferenceSession(content, providers=['CPUExecutionProvider'])
    feed = {node.name: values.numpy() for node, values in zip(session.get_inputs(), inputs, strict=True)}
    return [torch.from_numpy(output) for output in session.run(None, feed)]
