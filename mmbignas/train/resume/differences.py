"""What a checkpoint lacks that a training needs to be resumed, and what it sets that the config says otherwise."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from mmbignas.utils.rules import shown

HUB = ('log_scalars', 'runtime_info', 'resumed_keys')
# Of schedulers: where they are, which a checkpoint is there to tell.
PROGRESS = ('last_step', '_global_step', '_last_value', 'last_epoch', 'best', 'num_bad_epochs', 'cooldown_counter',
            'verbose', 'base_values')  # base_values are the optimizer's
LIMITS = ('max_epochs', 'max_iters')
NAMED = 4


def what_is_missing(checkpoint: Any) -> list[str]:
    """Names of what MMEngine cannot resume a training without, and a checkpoint does not have.

    Args:
        checkpoint: what a file holds.
    """
    if not isinstance(checkpoint, Mapping):
        return ['state_dict']
    missing = [] if isinstance(checkpoint.get('state_dict'), Mapping) else ['state_dict']
    meta, hub = checkpoint.get('meta'), checkpoint.get('message_hub')
    if isinstance(meta, Mapping):
        missing += [f'meta.{name}' for name in ('epoch', 'iter') if type(meta.get(name)) is not int]
    else:
        missing.append('meta')
    if not isinstance(hub, Mapping) or not all(isinstance(hub.get(name), Mapping) for name in HUB):
        missing.append('message_hub')
    return missing


def what_begins_anew(runner: Any, checkpoint: Mapping[str, Any]) -> list[str]:
    """Names of what goes on from its beginning, as the checkpoint has nothing of it.

    Args:
        runner: the run that is resumed.
        checkpoint: what a file holds.
    """
    return [name for name, own in (('optimizer', runner.optim_wrapper), ('param_schedulers', runner.param_schedulers))
            if own and not checkpoint.get(name)]


def what_differs(runner: Any, checkpoint: Mapping[str, Any]) -> str:
    """What was otherwise in the run that is resumed, in one line; '' for nothing.

    Of these, MMEngine takes the number of epochs or iterations from the config, and all others from the checkpoint.

    Args:
        runner: the run, with its optimizer and schedulers as they were built.
        checkpoint: what a file holds.
    """
    found = [f'{name} is {shown(_plain(there))} there{"" if name in LIMITS else ", which holds,"} and '
             f'{shown(_plain(here))} here{", which holds" if name in LIMITS else ""}'
             for name, there, here in _differences(runner, checkpoint) if not _same(there, here)]
    return '; '.join(found[:NAMED]) + (f'; and {len(found) - NAMED} more' if len(found) > NAMED else '')


def _differences(runner: Any, checkpoint: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, value in the checkpoint, value in this run."""
    info, loop = checkpoint['message_hub']['runtime_info'], runner.train_loop
    limits = [(name, info[name], getattr(loop, name)) for name in LIMITS if name in info]
    yield from [limit for limit in limits if limit[1] != limit[2]][:1]  # more epochs are more iterations, too
    yield from _schedules(runner.param_schedulers, checkpoint.get('param_schedulers'), 'param_scheduler')
    saved, own = checkpoint.get('optimizer'), getattr(runner.optim_wrapper, 'optimizer', None)
    groups = saved.get('param_groups') if isinstance(saved, Mapping) else None
    if own is None or not isinstance(groups, list):
        return
    for index, (there, here) in enumerate(zip(groups, own.param_groups)):
        for name in here:
            # What a schedule changes began as another entry, which says so.
            if name in there and name != 'params' and f'initial_{name}' not in here:
                yield f'optimizer.param_groups[{index}].{name.removeprefix("initial_")}', there[name], here[name]


def _schedules(ours: Any, theirs: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(ours, Mapping):  # of several optimizers
        for name in ours:
            yield from _schedules(ours[name], theirs.get(name) if isinstance(theirs, Mapping) else None,
                                  f'{where}.{name}')
    elif ours and isinstance(theirs, list):
        yield f'the number of {where}', len(theirs), len(ours)
        for index, (own, there) in enumerate(zip(ours, theirs)):
            here = own.state_dict()
            for name in here:
                if name not in PROGRESS:
                    yield f'{where}[{index}].{name}', there.get(name), here[name]


def _plain(value: Any) -> Any:
    return sorted(value.elements()) if isinstance(value, Counter) else value  # milestones


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(first == second)
