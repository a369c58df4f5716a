"""The metrics that a config names, and those that there are."""
from __future__ import annotations

from collections.abc import Iterable, Mapping

from mmengine.evaluator import Evaluator

from mmbignas.errors import ConfigError


class WantedMetrics:
    """Notices metrics that do not exist as soon as that can be known.

    COCO's evaluation gives no metric at all where nothing was detected, so a metric that is missing may still come.

    Args:
        wanted: place in the config -> name of a metric.
        evaluator: what gives the metrics.
    """

    def __init__(self, wanted: Mapping[str, str], evaluator: Evaluator) -> None:
        self.wanted = dict(wanted)
        self._prefixes = {f'{metric.prefix}/' for metric in evaluator.metrics if metric.prefix}
        self._seen: dict[str, None] = {}

    def see(self, names: Iterable[str]) -> str | None:
        """Take note of the metrics of a subnet.

        Args:
            names: their names, those of metrics that are no number too.

        Returns:
            str: the first metric of all, ``None`` as long as there was none.

        Raises:
            ConfigError: when a wanted metric does not exist, listing those that do.
        """
        self._seen.update(dict.fromkeys(names))
        # Those that have said nothing may have something to say of other subnets.
        silent = tuple(prefix for prefix in self._prefixes if not any(name.startswith(prefix) for name in self._seen))
        for key, name in self.wanted.items() if self._seen else ():
            if name not in self._seen and not name.startswith(silent):
                raise ConfigError(f'{key}: {name!r} is not allowed; allowed: {", ".join(self._seen)}')
        return next(iter(self._seen), None)
