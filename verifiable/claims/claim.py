"""The descriptor of one claim of a program: what is committed, and how it is tested."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from verifiable.claims.form import Form
from verifiable.claims.loop import LoopForm
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Env, Equation, Var
from verifiable.jaxpr.effects import HALF_PRECISION
from verifiable.jaxpr.precisions import algorithm
from verifiable.policy import NarrowSum


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Claim:
    """An equation that a device commits to.

    Attributes:
      index: position in the trace.
      equation: the claimed equation.
      form: how what is committed is tested.
      operands: values that the verifier replays for the test.
      far: the operand that is projected, if there is one.
      trips: lengths of the scans around it; leading dimensions of the committed array.
      group: index of the first claim under the outermost of these scans; its own index if none.
      rounding_dtypes: types that its operands were rounded to since they were last exact.
      narrow_sums: replayed sums in a narrow type that its operands went through since then.
      discontinuities: names of discontinuous equations before its operands.
      flushable: names of comparisons before its operands that flip where these are subnormal.
      loops: names of replayed loops before its operands.
      transpose: the transpose that alone reads the equation's output, if there is one.
    """

    index: int
    equation: Equation = field(repr=False)
    form: Form
    operands: tuple[Atom, ...] = field(repr=False)
    far: Atom | None = field(repr=False)
    trips: tuple[int, ...]
    group: int
    rounding_dtypes: frozenset[str]
    narrow_sums: frozenset[NarrowSum]
    discontinuities: frozenset[str]
    flushable: frozenset[str]
    loops: frozenset[str]
    transpose: Equation | None = field(repr=False)

    @property
    def name(self) -> str:
        """Scopes of the user's program and the primitive, unique within the program."""
        return self.equation.name

    @property
    def primitive(self) -> str:
        """Name of the primitive."""
        return self.equation.kind

    @property
    def output(self) -> Var:
        """The first output of the equation."""
        return self.equation.outputs[0]

    @property
    def sources(self) -> tuple[Atom | None, ...]:
        """For each output of the equation, the input that its elements are moved from, if any."""
        inputs = self.equation.inputs
        return tuple(None if i is None else inputs[i] for i in self.form.moved_from)

    @property
    def loop(self) -> LoopForm | None:
        """The form, if the equation is a loop; then it is replayed as a whole."""
        return self.form if isinstance(self.form, LoopForm) else None

    @property
    def feeds(self) -> Sequence[Atom]:
        """Values that the outputs need, besides what is committed."""
        if self.loop is not None:
            return self.loop.reads
        return [a for a in self.sources if a is not None]

    def evaluate(self, env: Env, apply: interpret.Apply = interpret.apply) -> list[Array]:
        """The outputs of the equation on a device; the last array is what is packed."""
        if self.loop is not None:
            return self.loop.run(self.equation, env, apply)
        return self.form.evaluate(
            self.equation, interpret.read_all(env, self.equation.inputs), apply
        )

    def prepare(
        self, committed: Array, env: Env, eps: float, limit: int, apply: interpret.Apply
    ) -> dict[str, Array]:
        """Replay what the test and the outputs need of the equation itself; writes to `env`.

        Args:
          committed: in one iteration of the scans around the claim.
          env: with the values of `reads`.
          eps: tolerance of the claim.
          limit: the most trips of a loop.
          apply: evaluates an equation without bodies.

        Returns:
          If the equation is a loop, whether it was cut short, by its name.
        """
        if self.loop is not None:
            outputs, operands, stopped = self.loop.replay(
                self.equation, env, committed, eps, limit, apply
            )
            interpret.write(env, self.equation.outputs, outputs)
            variables = [a for a in self.operands if isinstance(a, Var)]
            interpret.write(env, variables, operands)
            return {self.equation.name: stopped}
        if self.replays_itself:
            interpret.replay(self.equation, env, apply)
        return {}

    def outputs(self, committed: Array, env: Env) -> list[Array]:
        """The outputs of the equation that a committed array stands for.

        Args:
          committed: in one iteration of the scans around the claim.
          env: with the values of `sources`, or as `prepare` left it.
        """
        if self.loop is not None:
            return interpret.read_all(env, self.equation.outputs)
        sources = [None if a is None else interpret.read(env, a) for a in self.sources]
        return self.form.outputs(committed, sources)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the committed array."""
        return self.trips + self.form.packed(self.output.shape, self.output.dtype)[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the committed array."""
        return self.form.packed(self.output.shape, self.output.dtype)[1]

    @property
    def near(self) -> Atom:
        """The first operand."""
        return self.operands[0]

    @property
    def replays_itself(self) -> bool:
        """Whether the equation's own output, replayed, is an operand of the test."""
        return self.output in self.operands

    @property
    def reads(self) -> Sequence[Atom]:
        """Values that the test and the outputs need, without those projected in the key."""
        if self.loop is not None:
            return self.feeds
        if self.replays_itself:
            return (*self.equation.inputs, *(a for a in self.operands if a is not self.output))
        if self.far is not None and not self.form.projected:
            return (*self.operands, self.far)
        sources = (a for a in self.sources if a is not None and a not in self.operands)
        return (*self.operands, *sources)

    @property
    def vectors(self) -> str | None:
        """Name of the set of random vectors that test it; None if it is tested without."""
        return self.form.vectors

    @property
    def eps_types(self) -> frozenset[str]:
        """Types whose rounding separates honest devices; none if they must be equal."""
        return self.form.eps_types(self.rounding_dtypes)

    @property
    def own_sums(self) -> frozenset[NarrowSum]:
        """The sum of a product, if a device may add it up in a narrow type."""
        product = self.form.contraction
        if product is None:
            return frozenset()
        named = algorithm(self.equation).sums
        return product.own_sums.union(NarrowSum(t, product.contracted) for t in named)

    @property
    def decisive(self) -> int:
        """K of a product that is tested in blocks of columns; else zero."""
        product = self.form.contraction
        return 0 if product is None else product.decisive

    @property
    def replays_inexactly(self) -> bool:
        """Whether the verifier's operands may differ from the device's in rounding."""
        return bool(self.rounding_dtypes and (self.eps_types or self.form.is_table))

    @property
    def narrow(self) -> bool:
        """Whether its operands were computed in a type of 16 bits since they were last exact."""
        return bool(self.rounding_dtypes & HALF_PRECISION)

    @property
    def row_width(self) -> int:
        """How many elements, or blocks of columns, of a row are tested each by itself."""
        return self.form.row_width(self.output.shape)

    def wholes(self, elements: int) -> list[np.ndarray[Any, Any]]:
        """For each way in which rows lie, where the elements of each row are, over all trips.

        Args:
          elements: of a deviation of the claim, over all trips.
        """
        trips = math.prod(self.trips)
        each = elements // max(trips, 1)
        start = each * np.arange(trips)[:, None, None]
        ways = self.form.wholes(self.output.shape, each)
        return [(start + own).reshape(-1, own.shape[1]) for own in ways]

    def place(self, element: int, way: int, elements: int) -> tuple[int, int]:
        """Iteration and row of an element; rows of one way count after those of another.

        Args:
          element: of a deviation of the claim, over all trips.
          way: in which the row lies.
          elements: how many there are.
        """
        each = max(elements // max(math.prod(self.trips), 1), 1)
        trip, element = divmod(element, each)
        ways = self.form.wholes(self.output.shape, each)
        found = np.argwhere(ways[way] == element)
        row = int(found[0, 0]) if found.size else 0
        return trip, row + sum(map(len, ways[:way]))

    def row(self, trip: int, row: int, elements: int) -> np.ndarray[Any, Any] | None:
        """The elements of a row, as `place` counts them; None if there is no such row."""
        trips = math.prod(self.trips)
        each = elements // max(trips, 1)
        if trip >= trips:
            return None
        for own in self.form.wholes(self.output.shape, each):
            if row < len(own):
                return trip * each + own[row]
            row -= len(own)
        return None

    @property
    def tests(self) -> int:
        """Rows tested at random, over all trips."""
        return self.form.tests * math.prod(self.trips)

    @property
    def decisions(self) -> int:
        """Number of counted decisions, over all trips."""
        return self.form.decisions * math.prod(self.trips)

    @property
    def work(self) -> int:
        """Operations that the verifier need not replay, over all trips."""
        return self.form.work * math.prod(self.trips)
