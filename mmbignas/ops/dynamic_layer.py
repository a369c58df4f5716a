"""What every dynamic layer has in common."""
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mmbignas.ops.slicing import plain_state


class DynamicLayer(nn.Module):
    """A torch layer that can compute with the first part of its parameters.

    A dynamic layer subclasses the torch layer it stands for and keeps its state-dict keys. It takes its input width
    from the tensor; its output width (and kernel size, groups) are attributes that the block around it sets.
    """

    shapes_follow_input = True  # whether plain_shapes goes by the input; if not, children have parameters of their own

    def subnet_state(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """The state of the plain layer that computes the same as this one for some subnet.

        Args:
            shapes: name of each parameter and buffer of the plain layer -> its shape.

        Returns:
            dict: the same names, as far as this layer has them -> detached tensors of these shapes.

        Raises:
            ValueError: for shapes that cannot be cut out of this layer.
        """
        return plain_state(self.state_dict(), shapes)

    def channels_in_use(self, name: str, count: int) -> slice | Tensor:
        """Where the ``count`` channels in use stand along the first axis of a parameter or buffer of this name.

        They are the first ones unless a layer says otherwise.
        """
        return slice(count)

    @abstractmethod
    def plain_shapes(self, input_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the parameters of the plain layer that computes the same as this one for such an input."""
