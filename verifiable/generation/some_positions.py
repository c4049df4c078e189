"""The run of some positions as a part of the whole run: where its values are in that trace.

The program that picks tokens at m positions (`Transcript.picked`) has the claims of the whole
program; those behind the layers have m rows instead of one for each position of the completion.
So its trace is a part of the whole trace, and an audit of the whole run at these positions is an
audit of this program, of what was opened of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Integer

from verifiable.check.partial.opened_rows import OpenedTensors
from verifiable.generation.ties import token_heads
from verifiable.program import Program
from verifiable.trace import Layout, OpenedTensor, TensorLayout

Indices = Integer[np.ndarray, " rows"]


@dataclass(frozen=True, eq=False, kw_only=True)
class SomePositions:
    """The program of some positions, and where the tensors of its layout are in the whole one's.

    Attributes:
      whole: the program of all positions.
      program: the program of some positions.
      axes: of each tensor, the axis along which the whole one has all positions; None if both are
        the same.
    """

    whole: Program = field(repr=False)
    program: Program = field(repr=False)
    axes: tuple[int | None, ...]

    @staticmethod
    def of(whole: Program, program: Program) -> SomePositions:
        """Compare two programs.

        Raises:
          ValueError: the model uses its positions otherwise than to select rows, or has layers of
            which some hold the choice of the tokens.
        """
        all_, some = (p.y.shape[0] for p in (whole, program))
        names = [[c.name for c in p.claims] for p in (whole, program)]
        same = names[0] == names[1]
        # Both have one output, and so as many tensors as claims and one.
        pairs = zip(whole.layout.tensors, program.layout.tensors, strict=True) if same else ()
        axes = [_axis(a, b, all_, some) for a, b in pairs]
        held = [set(p.compiled_setup.layout.names) for p in (program, whole)]
        if not same or any(axis == -1 for axis in axes) or not held[0] <= held[1]:
            raise ValueError(
                "the model computes otherwise for other numbers of positions, so that its texts "
                "cannot be audited in some: logits(params, token_ids, positions) must select the "
                "rows of these positions, and nothing else must depend on how many they are"
            )
        heads = token_heads(program, 1)
        picked = {c.index for c in program.claims if axes[c.index] is not None or c.name in heads}
        if not picked <= program.always_tested:
            raise ValueError(
                "the model's layers are not told apart from what tokens are picked from, so that "
                "an audit of some layers may leave it out: compute the layers in one scan, or in "
                "scopes with numbers that hold nothing else"
            )
        return SomePositions(whole=whole, program=program, axes=tuple(axes))

    def leaves(self, part: Sequence[int], places: Indices) -> tuple[int, ...]:
        """The leaves of the whole trace that hold some leaves of the part, ascending.

        Args:
          part: leaves of the layout of the part.
          places: the positions.
        """
        layout, found = self.whole.layout, [np.empty(0, np.int64)]
        tensors, starts, stops = self.program.layout.places(part).T
        for tensor in np.unique(tensors).tolist():
            own = tensors == tensor
            pairs = zip(starts[own].tolist(), stops[own].tolist(), strict=True)
            rows = np.concatenate([np.arange(a, b) for a, b in pairs])
            rows = self._rows(tensor, np.unique(rows), places)
            found.append(layout.leaf(tensor, 0) + layout.tensors[tensor].leaf(rows))
        return tuple(np.unique(np.concatenate(found)).tolist())

    def received(self, opened: OpenedTensors, places: Indices) -> OpenedTensors:
        """What was opened of the whole trace, as the tensors of the part.

        Args:
          opened: verified to be what was committed to.
          places: the positions.
        """
        layout: Layout = self.program.layout
        found: list[OpenedTensor] = []
        for tensor, own in opened.own.items():
            if self.axes[tensor] is None:
                found.append(own)
                continue
            part = layout.tensors[tensor]
            values = own.some(self._rows(tensor, np.arange(part.rows), places))
            if self.axes[tensor] == len(part.shape) - 1:
                values = values[:, places]
            found.append(OpenedTensor(tensor=tensor, numbers=np.arange(part.rows), rows=values))
        return OpenedTensors.of(layout, found)

    def _rows(self, tensor: int, rows: Indices, places: Indices) -> Indices:
        """The rows of a whole tensor that are some rows of the part."""
        axis, part = self.axes[tensor], self.program.layout.tensors[tensor]
        if axis is None or axis == len(part.shape) - 1:
            return rows
        at = list(np.unravel_index(rows, part.shape[:-1]))
        at[axis] = places[at[axis]]
        return np.ravel_multi_index(at, self.whole.layout.tensors[tensor].shape[:-1])


def _axis(whole: TensorLayout, part: TensorLayout, all_: int, some: int) -> int | None:
    """The axis of all positions in one tensor, and of some in the other; -1 if there is none."""
    if (whole.shape, whole.dtype) == (part.shape, part.dtype):
        return None
    if len(whole.shape) != len(part.shape) or whole.dtype != part.dtype:
        return -1
    pairs = enumerate(zip(whole.shape, part.shape, strict=True))
    others = [(i, sizes) for i, sizes in pairs if sizes[0] != sizes[1]]
    return others[0][0] if len(others) == 1 and others[0][1] == (all_, some) else -1
