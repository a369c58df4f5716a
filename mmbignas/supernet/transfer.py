"""Weights of one network for another with the same names and other shapes, without either network."""
from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mmbignas.ops import plain_state

# What a dynamic layer has in addition to its plain counterpart's entries: a normalisation for each narrower width,
# kernel transforms.
OWN_ENTRIES = re.compile(r'(?:^|\.)(?:narrow\.\d+\.([^.]+)|transforms\.\d+to\d+)$')


class Overlap(NamedTuple):
    """What :func:`overlap` took, by names of the target.

    Args:
        whole: entries that the source covers.
        part: entries that it covers in part, with the shape of the part.
        untouched: entries that the source does not have.
        unused: names of the source without a counterpart.
    """

    whole: list[str]
    part: dict[str, tuple[int, ...]]
    untouched: list[str]
    unused: list[str]


def layer_of(key: str, state: Mapping[str, Tensor]) -> tuple[str, str]:
    """The path of the layer that an entry of a state dict belongs to, and the entry's name in that layer."""
    own = OWN_ENTRIES.search(key)
    if own:
        path, name = key[:own.start()], key[own.start():].lstrip('.')
        # A dynamic layer has the same entry for its full width; a module that happens to have this name does not.
        if (f'{path}.' if path else '') + (own[1] or 'weight') in state:
            return path, name
    path, _, name = key.rpartition('.')
    return path, name


def by_layer(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A state dict as path of the layer -> the layer's own state dict."""
    layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in state.items():
        path, name = layer_of(key, state)
        layers[path][name] = value
    return dict(layers)


def sliced(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a subnet, cut out of the state dict of its supernet, the source.

    The target is the state dict of the subnet's plain network, for names and shapes.

    Raises:
        ValueError: for an entry that the source lacks or that is smaller there.
    """
    layers, state = by_layer(source), {}
    for path, entries in by_layer(target).items():
        prefix = f'{path}.' if path else ''
        if path not in layers:
            raise ValueError(f'there is no {prefix}{next(iter(entries))}')
        try:
            cut = plain_state(layers[path], {name: tuple(value.shape) for name, value in entries.items()})
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from None
        for name in entries:
            if name not in cut:
                raise ValueError(f'there is no {prefix}{name}')
            state[prefix + name] = cut[name]
    return state


@torch.no_grad()
def overlap(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Overlap:
    """Copy what two networks have in common: first channels, and the centre of kernels of different sizes.

    Args:
        source: state dict of a network, smaller or larger in any dimension.
        target: state dict of the other; its tensors are written to. A batch normalisation with statistics for every
            width takes each from a source that has only one.
    """
    result, used = Overlap([], {}, [], []), set()
    for key, value in target.items():
        path, name = layer_of(key, target)
        plain = f'{path}.{name.rpartition(".")[2]}' if name.startswith('narrow.') else key
        found = key if key in source else plain
        if found not in source or source[found].dim() != value.dim():
            result.untouched.append(key)
            continue
        used.add(found)
        other = source[found]
        shape = tuple(min(mine, theirs) for mine, theirs in zip(value.shape, other.shape))
        value[_window(value.shape, shape)] = other[_window(other.shape, shape)].to(value)
        if shape == tuple(value.shape):
            result.whole.append(key)
        else:
            result.part[key] = shape
    result.unused.extend(name for name in source if name not in used)
    return result


def _window(full: torch.Size, part: tuple[int, ...]) -> tuple[slice, ...]:
    """The position of a part: first channels, centre of the kernel."""
    starts = [(have - want) // 2 if dim >= 2 else 0 for dim, (have, want) in enumerate(zip(full, part))]
    return tuple(slice(start, start + want) for start, want in zip(starts, part))
