"""How predictions are kept and drawn, for which MMDetection and MMPretrain have different classes."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet.models.detectors.base import BaseDetector
from mmengine.hooks import Hook
from torch import nn

from mmbignas.utils.models import unwrapped


@dataclass(frozen=True)
class Predictions:
    """How the predictions of a kind of models are kept and drawn.

    Args:
        dump: the metric that writes them to a file.
        hook: the hook that draws them.
        on: arguments of the hook that make it draw all of them.
        folder: its argument for the folder of the pictures.
        in_run: whether it takes that folder for one inside the run's.
    """

    dump: str
    hook: str
    on: dict[str, Any]
    folder: str
    in_run: bool

    def drawing(self, folder: str | None, work_dir: str) -> dict[str, Any]:
        """Arguments of the hook that make it draw all predictions.

        Args:
            folder: for the pictures, inside the work dir; ``None`` for no files.
            work_dir: of the run.
        """
        if folder is not None and not self.in_run:
            folder = str(Path(work_dir, folder))
        return {**self.on, self.folder: folder}

OF_DETECTORS = Predictions('mmdet.DumpDetResults', 'DetVisualizationHook', dict(draw=True), 'test_out_dir', True)

OF_CLASSIFIERS = Predictions('DumpResults', 'VisualizationHook', dict(enable=True, interval=1), 'out_dir', False)


def drawn_by(hook: str) -> Predictions:
    """What the hook of this class draws; those other than MMPretrain's are taken to be derived from MMDetection's."""
    return OF_CLASSIFIERS if hook == OF_CLASSIFIERS.hook else OF_DETECTORS


@contextmanager
def drawn_apart(hooks: Iterable[Hook], name: str) -> Iterator[None]:
    """Let the hooks that draw predictions into a folder use one below it, called ``name``.

    Pictures have the names of their images, so those of several networks would replace each other.
    """
    before = []
    for hook in hooks:
        for own in (OF_DETECTORS, OF_CLASSIFIERS):
            folder = getattr(hook, own.folder, None)
            if folder is not None and any(kind.__name__.endswith(OF_CLASSIFIERS.hook) for kind in type(hook).__mro__):
                before.append((hook, own.folder, folder))
                setattr(hook, own.folder, str(Path(folder, name)))
    try:
        yield
    finally:
        for hook, attribute, folder in before:
            setattr(hook, attribute, folder)


def is_detector(model: nn.Module) -> bool:
    """Whether a model, or the one in a wrapper, finds boxes."""
    return isinstance(unwrapped(model), BaseDetector)


def predictions_of(model: nn.Module) -> Predictions:
    """How the predictions of a model are kept and drawn; what is no detector is treated as a classifier."""
    return OF_DETECTORS if is_detector(model) else OF_CLASSIFIERS
