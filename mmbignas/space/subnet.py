"""One subnet: the settings of a whole model, as a value."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmbignas.space.module_space import ModuleSettings

ImageSize = tuple[int, int]

IMAGE_SIZE = 'image_size'  # its key among the paths of the modules


class Subnet(Mapping[str, ModuleSettings]):
    """Canonical settings of a whole model: module path -> element -> values. Immutable and hashable.

    Args:
        settings: canonical settings, as :meth:`SearchSpace.canonical` makes them.
        image_size: height and width of the images in pixels, where the space has several image sizes.
    """

    def __init__(self, settings: Mapping[str, ModuleSettings], image_size: ImageSize | None = None) -> None:
        self._settings = {path: {name: tuple(values) for name, values in elements.items()}
                          for path, elements in settings.items()}
        self._image_size = image_size
        self._key = (image_size, *[(path, *elements.items()) for path, elements in self._settings.items()])

    @property
    def image_size(self) -> ImageSize | None:
        """Height and width of the images in pixels; ``None`` if the space leaves no choice."""
        return self._image_size

    def __getitem__(self, path: str) -> ModuleSettings:
        return dict(self._settings[path])

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subnet) and self._key == other._key

    def __repr__(self) -> str:
        return f'Subnet({self.to_dict()})'

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain dicts and lists, for a config or a JSON file.

        Returns:
            dict: module path -> element -> list of values, and, where the subnet has one, ``image_size`` -> height and
            width.
        """
        settings: dict[str, Any] = {path: {name: list(values) for name, values in elements.items()}
                                    for path, elements in self._settings.items()}
        if self._image_size is not None:
            settings[IMAGE_SIZE] = list(self._image_size)
        return settings
