"""What the accuracy of subnets that were not evaluated is likely to be."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmbignas.analysis.accuracy_sample import AccuracySample
from mmbignas.cost.units import format_macs
from mmbignas.space import SearchSpace, Subnet, json_number

MIN_SUBNETS = 20
BEST = 10
NOISE = 1e-9  # less is no difference


def predict_others(sample: AccuracySample, space: SearchSpace, costs: Callable[[Subnet], Mapping[str, float]],
                   others: Iterable[Subnet]) -> dict[str, Any] | None:
    """Predict ``metric1`` of subnets from those that were evaluated.

    Args:
        sample: the evaluated subnets.
        space: their space.
        costs: what a subnet costs.
        others: subnets of the space; those that were evaluated are passed over.

    Returns:
        dict: ``kendall_tau`` on held-out subnets, ``None`` if there is none, and their ``number``, and the ``best`` of
        the others, altogether and near each mark; ``None`` where too few are known, or all are equal.

    Raises:
        DependencyError: without scikit-learn.
    """
    from mmbignas.search import AccuracyPredictor

    values = [own.metric(sample.metric1) for own in sample.subnets]
    known = {own.number for own in sample.subnets}
    if len(known) < MIN_SUBNETS or max(values) - min(values) < NOISE:
        return None
    subnets = [space[own.number] for own in sample.subnets]
    amounts = [costs(subnet) for subnet in subnets]
    predictor = AccuracyPredictor(space)
    correlation = predictor.cross_validated(subnets, amounts, values)
    rest = [(number, subnet, costs(subnet)) for subnet in others if (number := space.index(subnet)) not in known]
    entries: list[dict[str, Any]] = []
    if rest:
        predicted = predictor.fit(subnets, amounts, values).predict([own[1] for own in rest], [own[2] for own in rest])
        entries = [dict(number=json_number(number), predicted=float(value), **amount, subnet_settings=subnet.to_dict())
                   for (number, subnet, amount), value in zip(rest, predicted)]
        entries.sort(key=lambda own: (-own['predicted'], own['macs']))
    near = {name: [own for own in entries if 100 * abs(own['macs'] - macs) <= macs][:BEST]
            for name, macs in sample.marks.items()}
    tau = correlation.tau if math.isfinite(correlation.tau) else None  # of a regression that says the same of all
    return dict(metric=sample.metric1, kendall_tau=tau, number=correlation.subnets, predicted=len(entries),
                best=entries[:BEST], **{f'best_near_{name}': own for name, own in near.items()})


def report(prediction: Mapping[str, Any]) -> str:
    """A prediction for people.

    Args:
        prediction: of :func:`predict_others`.
    """
    tau = prediction['kendall_tau']
    tau = 'none' if tau is None else f'{tau:.3f}'
    lines = [f'predicted {prediction["metric"]}: Kendall tau {tau} with the evaluated one, '
             f'held out in turn, of {prediction["number"]} subnets; of {prediction["predicted"]} others the most is '
             'expected of:']
    for name, entries in prediction.items():
        if name.startswith('best') and entries:
            described = [f'subnet {own["number"]} ({own["predicted"]:.4f}, {format_macs(own["macs"])})'
                         for own in entries[:3]]
            lines.append(f'  {name.replace("_", " ")}: {", ".join(described)}')
    return '\n'.join(lines)
