"""The second stage of a two-stage detector on the regions of another network.

Student and teacher propose regions of their own, and draw from them what they learn from. What they say of different
regions cannot be compared. So the student's second stage computes once more, from the student's features, on the
regions that the teacher looked at.
"""
from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

SECOND_STAGE = 'roi_head'
METHODS = ('_bbox_forward', '_mask_forward')  # of MMDetection's RoI heads: from features and regions to predictions
ARGUMENTS = {'stage', 'x', 'rois'}


class RegionCall(NamedTuple):
    """A call of the second stage.

    Args:
        method: which of :data:`METHODS`.
        stage: number of the stage of a cascade; empty for a head of one stage.
        regions: ``(K, 5)``: number of the image, and the corners of the region in pixels.
    """

    method: str
    stage: dict[str, int]
    regions: Tensor


class RegionRecorder:
    """Knows on which regions a detector's second stage computed between :meth:`start` and :meth:`stop`.

    Args:
        model: the detector; for any other network there is nothing to know.
    """

    def __init__(self, model: nn.Module) -> None:
        self._head: Any = getattr(model, SECOND_STAGE, None)
        self._methods = [name for name in METHODS if hasattr(self._head, name)]
        self._features: dict[str, Any] = {}
        self.calls: list[RegionCall] = []

    def start(self) -> None:
        """Begin to watch, forgetting what was seen before."""
        self.stop()  # after an exception it may still watch
        self._features, self.calls = {}, []
        for name in self._methods:
            setattr(self._head, name, partial(self._call, name, getattr(self._head, name)))

    def stop(self) -> None:
        """End watching."""
        for name in self._methods:
            vars(self._head).pop(name, None)

    def _call(self, name: str, method: Any, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(method).bind(*args, **kwargs).arguments
        if set(given) <= ARGUMENTS and 'rois' in given:
            self._features[name] = given['x']
            stage = {key: given[key] for key in ('stage',) if key in given}
            self.calls.append(RegionCall(name, stage, given['rois'].detach()))
        return method(*args, **kwargs)

    def compute_on(self, calls: Iterable[RegionCall]) -> None:
        """Let the second stage compute on the regions of these calls, from the features of the pass that was watched.

        Args:
            calls: of another network, or of the same one as another subnet.
        """
        for call in calls:
            if call.method in self._features:
                getattr(self._head, call.method)(**call.stage, x=self._features[call.method], rois=call.regions)
        self._features = {}
