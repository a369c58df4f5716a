"""Values of metrics: one that is missing is worth 0; one that is no number cannot be compared."""
from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any


def is_number(value: Any) -> bool:
    """Whether a metric is a number. NaN and infinity, ``None`` in files, say that there is no such number."""
    try:
        return isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def metric_value(metrics: Mapping[str, Any], name: str | None) -> float:
    """A metric of a subnet.

    Args:
        metrics: those of the subnet; COCO's evaluation gives none where nothing was detected.
        name: its name; ``None`` where no subnet has metrics.

    Returns:
        float: 0 for one that is missing, NaN for one that is no number, as that of a class without a box.
    """
    if name is None or name not in metrics:
        return 0.
    return float(metrics[name]) if is_number(metrics[name]) else math.nan


def format_metric(value: Any, digits: int) -> str:
    """A metric in a table, with so many decimals; ``-`` where there is no such number."""
    return f'{value:.{digits}f}' if is_number(value) else '-'
