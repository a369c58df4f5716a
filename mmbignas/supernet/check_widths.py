"""Whether the modules of a supernet fit together in every subnet."""
from __future__ import annotations

from functools import partial

from torch import nn

from mmbignas.errors import ConfigError
from mmbignas.ops import DynamicLayer
from mmbignas.space import ImageSize, Subnet
from mmbignas.supernet import Supernet, probe
from mmbignas.utils.rules import must_be


def check_widths(supernet: Supernet, image_size: ImageSize | None = None) -> None:
    """Make sure that every module takes what the smallest subnet gives it, and needs what the largest does.

    A plain neck behind a searchable backbone, for example, fits the largest subnet only. A dynamic layer that is wider
    than anything it is given would never train the rest.

    Args:
        supernet: the model, which is left as it was. An elastic network fits: its plan was verified.
        image_size: height and width in pixels of the images that it is for, if they are known.

    Raises:
        ConfigError: naming the first layer that does not fit.
    """
    if hasattr(supernet.model, 'elastic'):
        return
    extremes = dict(smallest=supernet.space.min(), largest=supernet.space.max())
    entered: dict[str, int] = {}  # path -> width of its input

    def enter(path: str, module: nn.Module, inputs: tuple) -> None:
        channels = -1 if isinstance(module, nn.Linear) else 1
        entered.pop(path, None)  # the last one has to be last
        entered[path] = inputs[0].shape[channels] if isinstance(module, DynamicLayer) else 0

    handles = [module.register_forward_pre_hook(partial(enter, path))
               for path, module in supernet.model.named_modules() if not isinstance(module, nn.ModuleList)]
    try:
        for size in extremes:
            probe(supernet, extremes[size], image_size)
    except (RuntimeError, ValueError) as error:
        last = list(entered)[-1] if entered else '?'
        if size == 'smallest' and not _takes(supernet, extremes['largest'], image_size):
            raise ConfigError(f'model: {last} does not take images, whatever the subnet ({error})') from error
        plain = type(getattr(supernet.model, 'head', None)).__name__ == 'LinearClsHead' and last.startswith('head')
        regions = 'roi_extractor' in last
        raise ConfigError(f'model: {last} does not take the {size} subnet ({error}); a module that gets tensors of '
                          'changing width has to be dynamic: give one of its elements as '
                          'dict(space=dict(min=[x], max=[x])) in place of [x]'
                          + ', or mmbignas.BigLinearClsHead' * plain + ', or mmbignas.BigRoIExtractor' * regions
                          ) from error
    except TypeError:
        return  # mode 'tensor' of this model needs more than an image, as that of a two-stage detector does
    finally:
        for handle in handles:
            handle.remove()
    for path, given in entered.items():
        layer = supernet.model.get_submodule(path)
        full = getattr(layer, 'in_channels', getattr(layer, 'in_features', given))
        if given and given < full:
            raise must_be(f'model: in_channels of {path}', f'{given}, the width that the largest subnet gives it', full)


def _takes(supernet: Supernet, subnet: Subnet, image_size: ImageSize | None) -> bool:
    try:
        probe(supernet, subnet, image_size)
    except (RuntimeError, ValueError):
        return False
    return True
