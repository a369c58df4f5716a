"""Subnets side by side: what each of them costs, and how good it is without and with BN calibration."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, is_main_process, master_only
from mmengine.evaluator import Evaluator
from mmengine.registry import MODELS
from terminaltables import AsciiTable
from torch.utils.data import DataLoader

from mmbignas.cost import CostModel
from mmbignas.data import is_one_size, read_image_sizes
from mmbignas.errors import ConfigError
from mmbignas.evaluation.metrics import WantedMetrics
from mmbignas.evaluation.subnet_loop import SubnetEval, json_metrics, number_metrics, plain_metrics, stage_of
from mmbignas.evaluation.subnet_val_loop import SubnetValLoop
from mmbignas.latency import Latency, build_backend, measure_latency
from mmbignas.latency.backends import check_count
from mmbignas.registry import LOOPS
from mmbignas.space import Subnet, json_number
from mmbignas.supernet import Supernet, subnet_config
from mmbignas.utils.checks import check_metric_name, errors_below
from mmbignas.utils.files import replacing
from mmbignas.utils.random_states import preserved_rng
from mmbignas.utils.units import format_macs, format_params

LATENCY: dict[str, Any] = dict(backend='torch', device='cpu', threads=1, batch_size=1)


@LOOPS.register_module()
class EvaluateSubnetLoop(SubnetValLoop):
    """Evaluates subnets like :class:`SubnetValLoop`, and says beside it what they cost; for ``test_cfg``.

    The costs come first, so that nothing is evaluated in vain if one cannot be had. The table at the end has a line a
    subnet: MACs, parameters, latency and the main metrics. ``evaluation.json`` in the run's folder has everything; it
    is written anew after each evaluation. As ``val_cfg`` it works too: the costs are then found out before the first
    validation, and the file is that of the last one.

    Weights, statistics, training flags, the current subnet and the random states (of the CPU) are the same afterwards
    as before.

    Args:
        runner: the runner.
        dataloader: a dataloader or its config.
        evaluator: an evaluator or its config.
        subnets: see :class:`SubnetValLoop`.
        calib_bn: likewise.
        image_size: ``[height, width]`` in pixels, as the model sees it, for MACs and latency; a list of such sizes
            to choose from where the subnets were trained in several, and each is then evaluated in its own.
        interpolation_type: see :class:`SubnetValLoop`.
        latency: how the exported networks are measured: ``backend``, ``device`` and ``threads`` as for
            :func:`~mmbignas.latency.measure_latency`, ``batch_size``; by default PyTorch, one thread of the CPU
            and one image. ``None`` for no latency.
        metric1: name of the metric in the table, e.g. ``coco/bbox_mAP``; ``None`` for the first one.
        metric2: of one more.
        fp16: evaluate in half precision.

    Raises:
        ConfigError: for arguments that are not allowed, a model whose costs cannot be had, or metrics that cannot be
            there. That metrics of one's own have another name may show in the first evaluation, whose results are
            written nevertheless.
        DependencyError: when a package of the latency back end is missing.
    """

    def __init__(self, runner: Any, dataloader: DataLoader | dict, evaluator: Evaluator | dict | list,
                 subnets: Sequence[str | Mapping[str, Any]] = ('max', 'min'), calib_bn: bool | str = 'both',
                 image_size: Any = None, latency: Mapping[str, Any] | None = LATENCY,
                 metric1: str | None = None, metric2: str | None = None, fp16: bool = False,
                 interpolation_type: str = 'bicubic') -> None:
        self._key = f'{stage_of(runner, dataloader)}_cfg'
        sizes = read_image_sizes(Supernet(runner.model).model, image_size, f'{self._key}.image_size')
        self.conditions: dict[str, Any] = {}  # of the latency
        self.latency = None if latency is None else self._read_latency(latency, runner)
        self.metrics = {name: check_metric_name(metric, f'{self._key}.{name}')
                        for name, metric in dict(metric1=metric1, metric2=metric2).items()}
        self.cost_model = CostModel(runner.model, sizes)
        super().__init__(runner, dataloader, evaluator, subnets, calib_bn, fp16,
                         None if is_one_size(image_size) else image_size, interpolation_type)
        self.subnets = {_name(own): own.subnet for own in self.evals}
        self.costs = {subnet: self.cost_model(subnet) for subnet in self.subnets.values()}
        self.latencies: dict[Subnet, Latency] = {}  # of the first process
        self._measured = latency is None
        self._first: str | None = None  # of the metrics that are numbers, as far as it is known
        self._wanted = WantedMetrics({f'{self._key}.{name}': metric for name, metric in self.metrics.items()
                                      if metric is not None}, self.evaluator)
        self._wanted.try_out(self)

    def _read_latency(self, latency: Any, runner: Any) -> dict[str, Any]:
        """The settings of the measurement, complete and checked."""
        key = f'{self._key}.latency'
        unknown = sorted(set(latency) - set(LATENCY)) if isinstance(latency, Mapping) else True
        if unknown:
            raise ConfigError(f'{key}: {latency!r} is not allowed; allowed: None, or a dict with {", ".join(LATENCY)}')
        if runner.cfg.get('model') is None:
            raise ConfigError(f'{key}: {dict(latency)} needs the config of the model, from which the exported networks '
                              'are built; allowed with a Runner that was given none: None')
        settings = {**LATENCY, **latency}
        with errors_below(key):
            check_count('batch_size', settings['batch_size'])
            backend = build_backend(settings['backend'], settings['device'], settings['threads'])
        self.conditions = dict(batch_size=settings['batch_size'], **backend.conditions)
        return settings

    def run(self) -> dict[str, float]:
        """Measure and evaluate all subnets.

        Returns:
            dict: ``'<subnet>/<metric>'`` -> value, as of :class:`SubnetValLoop`.

        Raises:
            ConfigError: when there is no ``metric1`` or ``metric2`` among the metrics.
        """
        training = {module: module.training for module in self.runner.model.modules()}
        with preserved_rng():
            try:
                self._measure_latencies()
                self._entries = self._begin_entries()
                self._write()
                return super().run()
            finally:
                for module, mode in training.items():
                    module.training = mode

    def _measure_latencies(self) -> None:
        """Measure the exported networks in the first process, while the others wait; once, as weights do not matter."""
        if self._measured or self.latency is None:
            return
        for subnet in self.costs:
            if is_main_process():
                plain = MODELS.build(subnet_config(self.runner.cfg.model, self.runner.model, subnet))
                self.latencies[subnet] = measure_latency(plain, self._image_size(subnet), **self.latency)
            barrier()  # after each of them: processes that wait too long are given up
        self._measured = True

    def _image_size(self, subnet: Subnet) -> tuple[int, int]:
        return subnet.image_size or self.cost_model.space.image_sizes[0]

    def _begin_entries(self) -> dict[str, dict[str, Any]]:
        """What ``evaluation.json`` says of each subnet, still without metrics."""
        entries = {}
        for name, subnet in self.subnets.items():
            cost, timing = self.costs[subnet], self.latencies.get(subnet)
            entries[name] = dict(
                name=name, number=json_number(self.cost_model.space.index(subnet)),
                subnet_settings=subnet.to_dict(), image_size=list(self._image_size(subnet)), macs=cost.macs,
                ops=cost.ops, params=cost.params,
                modules={part: amounts._asdict() for part, amounts in cost.modules.items()},
                latency=timing and dict(median=timing.median, iqr=timing.iqr, samples=timing.samples),
                metrics=None, metrics_calib=None)
        return entries

    def _record(self, subnet_eval: SubnetEval, metrics: Mapping[str, float], stage: str) -> None:
        super()._record(subnet_eval, metrics, stage)
        key = 'metrics_calib' if subnet_eval.calib_bn else 'metrics'
        self._entries[_name(subnet_eval)][key] = json_metrics(metrics)
        self._write()
        try:
            self._first = self._wanted.see(number_metrics(metrics))
        except ConfigError as error:
            raise ConfigError(f'{error}; what was evaluated is in {self._file()}') from None

    def _file(self) -> Path:
        return Path(self.runner.log_dir, 'evaluation.json')

    @master_only
    def _write(self) -> None:
        """Write everything that is known; the file is replaced when the new one is complete."""
        content = dict(
            checkpoint=self.runner._load_from, iter=self._iteration(), latency_conditions=self.conditions or None,
            subnets=list(self._entries.values()))
        with replacing(self._file()) as aside:
            aside.write_text(json.dumps(content, indent=2, default=str, allow_nan=False) + '\n', encoding='utf-8')

    @master_only
    def _report(self, results: Mapping[str, Mapping[str, float]], names: Sequence[str], stage: str) -> None:
        """Log one table, a line a subnet."""
        chosen = [self.metrics['metric1'] or self._first, self.metrics['metric2']]
        columns = [(name, calib_bn) for name in dict.fromkeys(chosen) if name
                   for calib_bn in sorted({own.calib_bn for own in self.evals})]
        sizes = self.cost_model.space.image_sizes
        rows = [['subnet', *['image size'] * (len(sizes) > 1), 'MACs', 'parameters',
                 *['latency ms'] * bool(self.latencies),
                 *(name + ', calibrated' * calib_bn for name, calib_bn in columns)]]
        evals = {(_name(own), own.calib_bn): own.name for own in self.evals}
        for name, subnet in self.subnets.items():
            cost, latency = self.costs[subnet], self.latencies.get(subnet)
            values = [plain_metrics(results[evals[name, calib_bn]]).get(metric, 0.) for metric, calib_bn in columns]
            size = '{}x{}'.format(*self._image_size(subnet))
            rows.append([name, *[size] * (len(sizes) > 1), format_macs(cost.macs), format_params(cost.params),
                         *([f'{latency.median:.2f}'] if latency else []), *(f'{value:.3f}' for value in values)])
        conditions = [f'image size {sizes[0][0]}x{sizes[0][1]}'] if len(sizes) == 1 else []
        conditions += [f'{name.replace("_", " ")} {value}' for name, value in self.conditions.items()]
        self.runner.logger.info(f'Subnets ({stage}), written to {self._file()}\n{AsciiTable(rows).table}\n'
                                f'{", ".join(conditions)}')


def _name(subnet_eval: SubnetEval) -> str:
    """The name of the subnet, without the mark of calibration."""
    return subnet_eval.name.removesuffix('_calib') if subnet_eval.calib_bn else subnet_eval.name
