"""Reading checkpoints, with errors that say what is wrong with them."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmbignas.errors import ConfigError
from mmbignas.utils.rules import must_be, one_of

WEIGHTS = ('ema', 'training')
PLAN = 'elastic_plan'  # where the metadata of a state dict has the plan of an elastic network
NAMED, LISTED = 3, 5  # names in a message about many weights, and in one about many names


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a model, and the facts stored with them.

    Args:
        path: where they come from.
        state_dict: the weights, on the CPU.
        meta: of MMEngine's checkpoints: config, classes, epoch, ...; empty if there is none.
        weights: for a run with ``EMAHook``, ``ema`` or ``training``; else ``None``.
        is_elastic: whether they are of an elastic network, whose channels have an order of their own.
    """

    path: str
    state_dict: dict[str, Tensor]
    meta: dict[str, Any]
    weights: str | None = None
    is_elastic: bool = False

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, if they are stored."""
        # MMDetection before 3.0 wrote CLASSES, and beside dataset_meta.
        facts = {**self.meta, **(self.meta.get('dataset_meta') or {})}
        classes = {str(name).lower(): value for name, value in facts.items()}.get('classes')
        return [str(name) for name in classes] if isinstance(classes, (list, tuple)) else None


def read_checkpoint(path: str | Path, weights: str | None = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: a file of MMEngine or of any other program that writes a state dict, alone or as ``state_dict``, or an
            address that MMEngine knows to load (``https://``, ``torchvision://``, ...).
        weights: for a run with ``EMAHook``, ``ema`` for the averaged weights or ``training`` for the trained ones.
            ``None`` takes ``state_dict``, as MMEngine's tools do: the averaged weights, if there are any.

    Raises:
        ConfigError: for a file that is missing, damaged or made to do harm, or that holds no weights; or for averaged
            weights that it does not have.
    """
    path = str(path)
    one_of(WEIGHTS).or_none().check(weights, 'weights')
    if '://' not in path and not Path(path).is_file():
        raise ConfigError(f'checkpoint not found: {path}; give an existing file')
    content = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    state = content.get('state_dict', content) if isinstance(content, Mapping) else None
    if not state or not isinstance(state, Mapping) or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        raise ConfigError(f'{path}: holds no weights; give a state dict, alone or as state_dict')
    is_elastic = any(PLAN in own for own in (getattr(state, '_metadata', None) or {}).values())
    if weights is None and 'ema_state_dict' in content:
        weights = 'ema'
    if weights is not None:
        state = _averaged_or_not(content, weights, path)
    meta = content.get('meta')
    # Names of a DDP wrapper that was not unwrapped.
    return Checkpoint(path, _unwrapped(state, content), dict(meta) if isinstance(meta, Mapping) else {}, weights,
                      is_elastic)


def _unwrapped(state: Mapping[str, Tensor], content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights under the names of the bare model, with what torch and elastic networks write beside them."""
    result: Any = OrderedDict((name.removeprefix('module.'), value) for name, value in state.items())
    metadata = getattr(content.get('state_dict', content), '_metadata', None)
    if metadata is not None:
        result._metadata = OrderedDict((path.removeprefix('module.'), own) for path, own in metadata.items())
    return result


def _averaged_or_not(content: Mapping[str, Any], weights: str, path: str) -> Mapping[str, Tensor]:
    """The averaged or the trained weights of a run with ``EMAHook``, which swaps them when it writes a checkpoint."""
    if 'ema_state_dict' not in content:
        raise must_be('weights', f'None for {path}, which, unlike checkpoints of a run with EMAHook, has no averaged '
                      'weights beside the trained ones', weights)
    if weights == 'ema':
        return content['state_dict']
    prefix = 'module.'
    return {name.removeprefix(prefix): value for name, value in content['ema_state_dict'].items()
            if name.startswith(prefix)}


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load a checkpoint into a model of the same architecture, which is no wrapper.

    Raises:
        ConfigError: when names or shapes differ; the model is then as it was.
    """
    check_weights(model, checkpoint)
    model.load_state_dict(checkpoint.state_dict)


def check_weights(model: nn.Module, checkpoint: Checkpoint, more: bool = False) -> None:
    """Make sure that a checkpoint fits the model's architecture, see :func:`check_state`; ``model`` is no wrapper."""
    check_state(model.state_dict(), checkpoint, more)


def check_state(expected: Mapping[str, Tensor], checkpoint: Checkpoint, more: bool = False) -> None:
    """Make sure that a checkpoint has the names and shapes of a state dict.

    Args:
        expected: the state dict.
        checkpoint: its weights.
        more: whether the checkpoint may have more than that.

    Raises:
        ConfigError: when names or shapes differ.
    """
    found = checkpoint.state_dict
    shapes = [f'{name} ({tuple(found[name].shape)} instead of {tuple(value.shape)})'
              for name, value in expected.items() if name in found and found[name].shape != value.shape]
    lacking = [name for name in expected if name not in found]
    unknown = [] if more else [name for name in found if name not in expected]
    problems = [f'{len(names)} {what}: {", ".join(names[:NAMED])}' + ', ...' * (len(names) > NAMED) for what, names in
                (('lacking', lacking), ('not in the model', unknown), ('of another shape', shapes)) if names]
    if problems:
        raise ConfigError(f'{checkpoint.path}: is of another architecture than the model; {"; ".join(problems)}')


def listed(names: Sequence[str]) -> str:
    """The first of many names, and the number of the others."""
    rest = len(names) - LISTED
    return ', '.join(names[:LISTED]) + (f' and {rest} more' if rest > 0 else '')
