"""Training loops that follow the sandwich rule."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dist import broadcast_object_list, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmbignas.agreement import agreement_of
from mmbignas.agreement.batches import check_batches
from mmbignas.data import read_size_list
from mmbignas.data.check_data import check_dataset_files
from mmbignas.data.pipeline_size import pipeline_size
from mmbignas.data.repeatable_loader import RepeatableLoader
from mmbignas.data.resizing import INTERPOLATION, Resizer
from mmbignas.registry import LOOPS
from mmbignas.supernet import Supernet
from mmbignas.supernet.check_widths import check_widths
from mmbignas.train.attentive import choose, read_attentive
from mmbignas.train.before_training import ValidateFirstHook
from mmbignas.train.sandwich_rule import SandwichRule
from mmbignas.train.subnet_pass import SubnetPass
from mmbignas.train.watch.same_on_all_ranks_hook import SameOnAllRanksHook
from mmbignas.utils.data_errors import data_errors_explained
from mmbignas.utils.distributed import average_gradients, check_same_length
from mmbignas.utils.models import unwrapped
from mmbignas.utils.random_states import mixed_seed, seed_process
from mmbignas.utils.rules import boolean, must_be


class SandwichLoop(BaseLoop):
    """What sandwich training by epoch and by iteration have in common.

    In an iteration, the batch is preprocessed once. Then, for each subnet: hook point ``before_subnet_forward``,
    forward, hook point ``after_subnet_forward``, which may add entries to the dict ``losses``, backward, hook point
    ``after_subnet_backward``, which is given the ``loss`` that was trained on, a scalar without a graph. These are
    methods ``(self, runner, subnet_pass, ...)`` of a hook with a :class:`~mmbignas.train.subnet_pass.SubnetPass`. The
    gradients add up; they are averaged over the processes once, hook point ``before_sandwich_step(self, runner)``,
    clipped once, and followed by one optimizer step. It is the sum of the passes' gradients, not their mean: for plain
    SGD a learning rate that suits one subnet is in effect multiplied by the number of passes.

    The subnets of an iteration depend on the run's seed and the number of the iteration alone, so they are the same on
    all ranks and after a resume. So are each rank's images, their augmentations, and whatever else is random (dropout,
    ...): a resumed run is the one that was not interrupted, see
    :class:`~mmbignas.data.repeatable_loader.RepeatableLoader`.

    For ``best_up`` and ``worst_up`` (AttentiveNAS, arXiv 2011.09011) this holds for the candidates, random subnets of
    about the same MACs. Before ``before_subnet_forward``, each of them computes its loss on the batch, without
    gradients, which costs a forward pass; the one with the lowest (``best_up``) or highest (``worst_up``) mean over the
    processes is trained. So the choice is the same on all ranks, but depends on the weights and the batch too. The loss
    is the model's own, with that of an external teacher. See :func:`~mmbignas.train.attentive.choose`.

    Several processes get a :class:`~mmbignas.train.SameOnAllRanksHook` where the config has none.

    Args:
        runner: the runner.
        dataloader: a dataloader or its config.
        sample_subnet_num: subnets per iteration. With 1, ``sample_strategy`` is walked one entry per iteration.
        sample_strategy: which subnets, one entry per pass: ``max``, ``min``, ``middle``, ``random``, ``best_up``,
            ``worst_up``, a number in the space, a .json or .yaml file, or settings.
        valid_before_train: validate once before the first iteration, by a
            :class:`~mmbignas.train.ValidateFirstHook`, if the config has none.
        image_size_list: sizes that the passes see the batch in, each ``[height, width]`` in pixels, see
            :class:`~mmbignas.train.sandwich_rule.SandwichRule`. The preprocessed batch is resized to each, see
            :func:`~mmbignas.data.resizing.at_resolution`; the data pipeline has to give the greatest. ``None`` for the
            batch as it is.
        share_interpolation: one size for all passes of an iteration.
        interpolation_type: one of :data:`~mmbignas.data.resizing.INTERPOLATIONS`.
        attentive: how the candidates of ``best_up`` and ``worst_up`` are drawn: a dict of ``candidates``, ``tolerance``
            and ``image_size``, see :func:`~mmbignas.train.attentive.read_attentive`. ``None`` for the defaults.
        **kwargs: of the MMEngine loop.

    Raises:
        ConfigError: for a strategy or image sizes that do not fit, ``best_up`` or ``worst_up`` with a model whose MACs
            cannot be counted, data files that do not exist, or MMEngine's ``sync_bn``, before data are loaded; and for
            epochs that have more batches in some processes than in others.

    Attributes:
        data: what the pass that is under way trains on, as ``model`` is given it; ``None`` between iterations.
        skip_step: set to True, in all processes, by a hook's ``before_sandwich_step`` to drop the gradients that have
            come together in place of the optimizer step.
    """

    resumes_within_epoch = True
    _iter: int

    def __init__(self, runner: Any, dataloader: DataLoader | dict, *args: Any, sample_subnet_num: int = 4,
                 sample_strategy: Sequence[str | Mapping[str, Any]] = ('max', 'min', 'random', 'random'),
                 valid_before_train: bool = False, image_size_list: Sequence[Any] | None = None,
                 share_interpolation: bool = False, interpolation_type: str = 'bicubic',
                 attentive: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if runner.cfg.get('sync_bn') is not None:
            raise must_be('sync_bn', "None, since it would replace the supernet's dynamic normalisations by plain "
                          "ones; norm_cfg=dict(type='SyncBN') synchronises them", runner.cfg.sync_bn)
        self.supernet = Supernet(runner.model)
        check_widths(self.supernet, pipeline_size(runner.cfg))
        sizes = self._read_sizes(image_size_list, interpolation_type)
        boolean().check(share_interpolation, 'train_cfg.share_interpolation')
        self.rule = SandwichRule(self.supernet.space, sample_subnet_num, sample_strategy, sizes, share_interpolation,
                                 read_attentive(attentive, sample_strategy, self.supernet.model, sizes))
        self.data: Any = None
        self.skip_step = False
        self._seed: int | None = None
        if isinstance(dataloader, dict):
            check_dataset_files(dataloader.get('dataset'), 'train_dataloader.dataset')
        if runner.cfg.get('val_cfg') is not None:
            check_dataset_files(runner.cfg.val_dataloader.get('dataset'), 'val_dataloader.dataset')
        super().__init__(runner, self._repeatable(runner, dataloader), *args, **kwargs)
        check_batches(self.dataloader, 'train_dataloader')  # before a schedule asks how long an epoch is
        agreement_of(runner)
        if isinstance(self, EpochBasedTrainLoop):
            check_same_length(self.dataloader)
        if get_world_size() > 1:
            _ensure_hook(runner, SameOnAllRanksHook)
        if valid_before_train and runner._val_loop is not None:
            _ensure_hook(runner, ValidateFirstHook)

    def _read_sizes(self, image_size_list: Any, interpolation: Any) -> list[tuple[int, int]]:
        """The image sizes, and a resizer for each."""
        INTERPOLATION.check(interpolation, 'train_cfg.interpolation_type')
        self._resizers: dict[tuple[int, int], Resizer] = {}
        if image_size_list is None:
            return []
        key, model = 'train_cfg.image_size_list', self.supernet.model
        sizes = read_size_list(model, image_size_list, key)
        self._resizers = {size: Resizer(model, size, interpolation, key) for size in sizes}
        return sizes

    def at_smallest_size(self, data: Any) -> Any:
        """A preprocessed batch in the smallest image size that a pass may see it in."""
        sizes = sorted(self._resizers, key=lambda size: size[0] * size[1])
        return self._resizers[sizes[0]](data, training=True) if sizes else data

    def _repeatable(self, runner: Any, dataloader: DataLoader | dict) -> RepeatableLoader:
        sampler_cfg = dataloader.get('sampler') if isinstance(dataloader, dict) else None
        with data_errors_explained():
            loader = runner.build_dataloader(dataloader, seed=runner.seed,
                                             diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False))
        return RepeatableLoader(loader, get_rank(), not isinstance(sampler_cfg, dict) or 'seed' in sampler_cfg)

    @property
    def seed(self) -> int:
        """The seed of the draws: that of rank 0, as ``diff_rank_seed`` gives each rank its own."""
        if self._seed is None:
            shared = [self.runner.seed]
            broadcast_object_list(shared)
            self._seed = int(shared[0])
        return self._seed

    def _train_iter(self, batch_idx: int, data_batch: Any) -> None:
        """Train all subnets of one iteration on a batch; ``None`` stands for one that was trained on already."""
        if data_batch is None:
            return
        seed_process(mixed_seed(self.seed, get_rank(), self._iter))
        self.runner.call_hook('before_train_iter', batch_idx=batch_idx, data_batch=data_batch)
        outputs = self._train_sandwich(data_batch)
        self.runner.call_hook('after_train_iter', batch_idx=batch_idx, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def _train_sandwich(self, data_batch: Any) -> dict[str, Tensor]:
        runner, optim_wrapper = self.runner, self.runner.optim_wrapper
        if not isinstance(optim_wrapper, OptimWrapper) or isinstance(optim_wrapper, OptimWrapperDict):
            raise must_be('optim_wrapper', 'an OptimWrapper, for one optimizer', type(optim_wrapper).__name__)
        model: Any = unwrapped(runner.model)
        with optim_wrapper.optim_context(model):
            data = model.data_preprocessor(data_batch, True)
        batches: dict[tuple[int, int] | None, Any] = {None: data}
        total, log_vars = 0., {}
        count = optim_wrapper._inner_count
        for subnet_pass in self.rule.passes(self.seed, self._iter):
            if subnet_pass.candidates:
                subnet_pass = self._choose(subnet_pass, batches)
            self.supernet.apply(subnet_pass.subnet)
            self.data = self._resized(subnet_pass, batches)
            runner.call_hook('before_subnet_forward', subnet_pass=subnet_pass)
            with optim_wrapper.optim_context(model):
                losses = model._run_forward(self.data, mode='loss')
                runner.call_hook('after_subnet_forward', subnet_pass=subnet_pass, losses=losses)
            loss, named = model.parse_losses(losses)
            # The optimizer wrapper counts backward passes to know when accumulated gradients are due; to it, the
            # passes of an iteration are one.
            optim_wrapper._inner_count = count
            optim_wrapper.backward(optim_wrapper.scale_loss(loss))
            runner.call_hook('after_subnet_backward', subnet_pass=subnet_pass, loss=loss.detach())
            total = total + loss.detach()
            log_vars.update({f'{subnet_pass.name}.{name}': value.detach() for name, value in named.items()})
            log_vars[f'{subnet_pass.name}.loss'] = loss.detach()  # a classifier has an entry of this name
        self.data = None
        if optim_wrapper.should_update():
            average_gradients(model.parameters())
            self.skip_step = False
            runner.call_hook('before_sandwich_step')
            if not self.skip_step:
                optim_wrapper.step()
            optim_wrapper.zero_grad()
        return {'loss': total, **log_vars}

    def _choose(self, subnet_pass: SubnetPass, batches: dict[tuple[int, int] | None, Any]) -> SubnetPass:
        """The candidate of a pass that is trained."""
        model: Any = self.supernet.model
        optim_wrapper = self.runner.optim_wrapper

        def loss(candidate: SubnetPass) -> Tensor:
            self.supernet.apply(candidate.subnet)
            with optim_wrapper.optim_context(model):
                losses = model._run_forward(self._resized(candidate, batches), mode='loss')
            return model.parse_losses(losses)[0]

        return choose(subnet_pass, model, loss)

    def _resized(self, subnet_pass: SubnetPass, batches: dict[tuple[int, int] | None, Any]) -> Any:
        """The batch in the image size of a pass; ``batches`` has those that there are by size."""
        size = subnet_pass.image_size
        if size is not None and size not in batches:
            batches[size] = self._resizers[size](batches[None], training=True)
        return batches[size]


def _ensure_hook(runner: Any, kind: type[Hook]) -> None:
    if not any(isinstance(hook, kind) for hook in runner.hooks):
        runner.register_hook(kind())


@LOOPS.register_module()
class SandwichTrainLoop(SandwichLoop, EpochBasedTrainLoop):
    """Sandwich training by epoch: MMEngine's ``EpochBasedTrainLoop`` with the iteration of :class:`SandwichLoop`.

    Args:
        max_epochs, val_begin, val_interval, dynamic_intervals: as in MMEngine.
        **kwargs: see :class:`SandwichLoop`.
    """

    def run(self) -> nn.Module:
        """Train. A run that was resumed within an epoch continues with the rest of it."""
        info, length = self.runner.message_hub.runtime_info, len(self.dataloader)
        self._done = self._iter - self._epoch * length
        if self._iter and info.get('max_iters') != info.get('max_epochs', 0) * length or not 0 <= self._done <= length:
            self.runner.logger.warning(f'train_dataloader: an epoch had another number of batches than {length} before '
                                       'the run was resumed; it continues at the beginning of an epoch')
            self._done = 0
        return super().run()

    def run_epoch(self) -> None:
        """Train for one epoch, or for what is left of it."""
        self.dataloader.begin(self.seed, self._iter - self._done, self._done)
        self._done = 0
        super().run_epoch()

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Train all subnets of one iteration."""
        self._train_iter(idx, data_batch)


@LOOPS.register_module()
class SandwichIterTrainLoop(SandwichLoop, IterBasedTrainLoop):
    """Sandwich training by iteration: MMEngine's ``IterBasedTrainLoop`` with the iteration of :class:`SandwichLoop`.

    Args:
        max_iters, val_begin, val_interval, dynamic_intervals: as in MMEngine.
        **kwargs: see :class:`SandwichLoop`.
    """

    def run(self) -> nn.Module:
        """Train. MMEngine's loop asks for the batches of before a resume, which are not loaded."""
        self.dataloader.begin(self.seed, 0, self._iter)
        return super().run()

    def run_iter(self, data_batch: Any) -> None:
        """Train all subnets of one iteration."""
        self._train_iter(self._iter, data_batch)
