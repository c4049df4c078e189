"""The interface of a kind of claim: replay, verdict, calibration and corridor use nothing else.

A kind is a subclass of `Form` and a `Rule`. The rule looks at an equation and proposes to commit
to its output, or returns None; `registry.RULES` lists the rules. The form says how the committed
output is tested, given

    operands    values that the verifier replays;
    projection  of a far operand on random vectors; if that operand depends on parameters only, the
                key holds the projection and not the operand.

A kind without random vectors and without a far operand defines `mismatch`, `eps_types`,
`test` and, if it has a tolerance, `deviate`; the defaults serve for the rest. What is committed is
the output itself, unless the kind defines `pack`, `unpack` and `packed`. An equation with several
outputs becomes a claim if its outputs follow from one committed array and its inputs: the kind
defines `moved_from` and `outputs`, and `evaluate` if no output is what is committed. A loop that is
a claim as a whole is a kind of its own: `loop`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax.numpy as jnp
import numpy as np

from verifiable.claims.contraction import Contraction
from verifiable.claims.statistic import Deviation, Statistic
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Equation
from verifiable.jaxpr.graph import Graph
from verifiable.jaxpr.integers import FixedPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """The arguments of a test besides the operands and the claim.

    Attributes:
      eps: tolerance, in the units of the form; zero if the claim must be exact.
      limit: L of `freivalds`, the quantile that the statistic of a random test must not exceed.
      vectors: the random vectors that `Form.vectors` names; None if it names none.
      projection: what `Form.project` returned for the far operand; None if there is none.
      moves: what `Form.moved` returned for other roundings of it, (replays,); None if it is exact
        or is moved itself. Of a claim `is_table`, the change of each element
        (`replay.parameter_values`).
      cheap: whether the test decides only what is clear (`Form.cheapened`); products see it in the
        type of the projection.
    """

    eps: float
    limit: float = 0.0
    vectors: Array | None = None
    projection: Any = None
    moves: Array | None = None
    cheap: bool = False


class Form(ABC):
    """How what is committed of an equation is tested.

    Attributes:
      mismatch: code of a failed test, one of `report.REASONS`.
      barrier: whether the device needs an optimisation barrier: without it, the compiler may
        compute the committed value a second time with other rounding.
      shifts: whether the output can be moved by a little, or turned round, as far as `room` says.
      rows_too: whether rows are tested as wholes besides their elements (`rounding.row_limit`).
      observes: whether calibration compares the values of the operands, which a trace does not
        show; the kind then defines `apart`.
      is_table: whether it is of values that depend on parameters only, and the key says how far
        each element may be off, in place of a tolerance.
      calibrates: whether calibration can measure how far operands are apart at all.
    """

    mismatch: ClassVar[str]
    barrier: ClassVar[bool] = True
    shifts: ClassVar[bool] = True
    rows_too: ClassVar[bool] = False
    is_table: ClassVar[bool] = False
    calibrates: ClassVar[bool] = True

    @property
    def observes(self) -> bool:
        """See the attributes."""
        return False

    @property
    def near(self) -> int:
        """Index of the replayed input of the equation, if the form chooses one; else 0."""
        return 0

    @property
    def projected(self) -> bool:
        """Whether the key holds a projection: the far operand depends on parameters only."""
        return False

    @property
    def projects(self) -> Hashable:
        """What the projection depends on besides the far operand, the vectors and eps."""
        return self

    @property
    def vectors(self) -> str | None:
        """Name of the set of random vectors that the test uses; None if it uses none."""
        return None

    @property
    def tests(self) -> int:
        """Number of rows tested with random vectors; the policy's phi is divided among them."""
        return 0

    @property
    def decisions(self) -> int:
        """Number of decisions, of which those that are not the verifier's own are counted."""
        return 0

    @property
    def work(self) -> int:
        """Arithmetic operations that the verifier need not replay; zero if it replays them."""
        return 0

    @property
    def contraction(self) -> Contraction | None:
        """The contraction of a product, whose test can be cut into tiles; None for other kinds."""
        return None

    def check_cost(self, draws: int) -> int:
        """Operations of the test, in the units of `work`."""
        del draws
        return 0

    @property
    def moved_from(self) -> tuple[int | None, ...]:
        """For each output of the equation, the index of the input that its elements are moved from.

        None for an output that follows from the committed array alone.
        """
        return (None,)

    @property
    def copies(self) -> int | None:
        """Index of the input whose elements the output holds, if they are committed as they are."""
        return None

    def evaluate(
        self, equation: Equation, inputs: Sequence[Array], apply: interpret.Apply = interpret.apply
    ) -> list[Array]:
        """The outputs of the equation on a device; the last array returned is what is packed.

        Args:
          equation: the claimed one.
          inputs: values of its inputs.
          apply: evaluates an equation without bodies.
        """
        return apply(equation, inputs)

    def packed(
        self, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of what is committed, given those of the equation's first output."""
        return shape, dtype

    def pack(self, out: Array) -> Array:
        """What is committed, given the last array of `evaluate`."""
        return out

    def unpack(self, claim: Array) -> Array:
        """The output that a committed array stands for; any array, if it is not honest."""
        return claim

    def outputs(self, claim: Array, sources: Sequence[Array | None]) -> list[Array]:
        """The outputs of the equation that a committed array stands for.

        Args:
          claim: what was committed, honest or not.
          sources: for each output, the input that `moved_from` names.
        """
        del sources
        return [self.unpack(claim)]

    def row_width(self, shape: tuple[int, ...]) -> int:
        """How many elements, or blocks of columns, of a row are tested each by itself.

        Args:
          shape: of the equation's first output.
        """
        return self.contraction.blocks if self.contraction else math.prod(shape[-1:])

    def wholes(self, shape: tuple[int, ...], elements: int) -> list[np.ndarray[Any, Any]]:
        """For each way in which rows lie, where the elements of each row are: (rows, width).

        Args:
          shape: of the equation's first output.
          elements: how many `deviate` has.
        """
        width = max(self.row_width(shape), 1)
        return [np.arange(elements // width * width).reshape(-1, width)]

    @abstractmethod
    def eps_types(self, rounding_dtypes: frozenset[str]) -> frozenset[str]:
        """Types whose rounding separates honest devices; none if they must commit the same bits.

        Args:
          rounding_dtypes: types that the operands were rounded to since they were last exact.
        """

    def unit(self, limit: float, draws: int) -> float:
        """The deviation, in units of eps, that the test measures as a ratio of 1."""
        del limit, draws
        return 1.0

    def project(self, far: Array, yardstick: Yardstick) -> Any:
        """What the test needs of the far operand, as a pytree; runs under `jax.enable_x64`."""
        raise NotImplementedError("only a form with a far operand projects it")

    def moved(self, far: Array, yardstick: Yardstick) -> Array:
        """How far the projection of another rounding of the far operand may move a row.

        Args:
          far: the other rounding.
          yardstick: its projection is of the far operand itself.

        Returns:
          float64 (), for `Deviation.moves`; runs under `jax.enable_x64`.
        """
        raise NotImplementedError("only a form with a far operand projects it")

    @abstractmethod
    def test(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Statistic:
        """Test what was committed against replayed operands; runs under `jax.enable_x64`."""

    def cheapened(self, yardstick: Yardstick) -> Yardstick:
        """The yardstick of a cheaper test that decides only what is clear; by default, of this one.

        What it leaves undecided has no finite operands in the statistic, and `retest` decides it.
        """
        return yardstick

    def retest(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Statistic:
        """Test once more a claim whose test found numbers that are not finite, or was undecided.

        A kind that must tell rows that are NaN on every device from others does so here, so that
        `test` need not. Arguments as of `test`; runs under `jax.enable_x64`.
        """
        return self.test(operands, claim, yardstick)

    def deviate(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Deviation:
        """How far a claim is from what its operands lead to, for a second look at a failed test.

        Only for claims with a tolerance; arguments as of `test`, but real floats of the operands
        may be float64. Runs under `jax.enable_x64`.
        """
        raise NotImplementedError("a form with a tolerance says how far a claim is off")

    def unfounded(self, operands: list[Array], claim: Array, yardstick: Yardstick) -> Array:
        """What of operands leaves no numbers, of rows for which numbers were committed.

        Where it is so of one element whatever the rounding of the operands, no device that has them
        computes what was committed. Arguments as of `deviate`.

        Returns:
          bool (rows, elements); rows are those of products, and of `deviate` of other kinds.
        """
        del operands, claim, yardstick
        return jnp.zeros((1, 1), bool)

    def deviate_exactly(
        self,
        equation: Equation,
        operands: list[Array],
        far: Array | None,
        claim: Array,
        eps: float,
    ) -> Deviation:
        """How far a claim is from its operands, without random vectors, for evidence.

        `limit` is the tolerance itself. Where nothing can be decided, `expected` is NaN.

        Args:
          equation: the claimed one.
          operands: as of `deviate`.
          far: the far operand, if the form has one.
          claim: what was committed.
          eps: tolerance, in the units of the form.
        """
        del equation, far
        return self.deviate(operands, claim, Yardstick(eps=eps))

    def apart(self, mine: list[Array], theirs: list[Array]) -> Array:
        """How far the operands of two honest runs are apart, in units of eps; float32 ()."""
        raise NotImplementedError("a form that observes its operands compares them")

    # The methods below say what the tolerance leaves to a cheat (`freedom.corridor`): by default,
    # nothing.

    def smooth(self, equation: Equation, inputs: list[Array], operands: list[Array]) -> Array:
        """The output of the equation, computed so that it has derivatives.

        Args:
          equation: the claimed one.
          inputs: values of its inputs.
          operands: values of the claim's operands.
        """
        del operands
        return interpret.apply(equation, inputs)[0]

    def room(self, operands: list[Array], far: Array | None, out: Array, eps: float) -> Any:
        """How far an honest output can be shifted undetected, as a pytree for `reach`."""
        del operands, far, out, eps
        return ()

    def reach(self, room: Any, slope: Array, kappa: float) -> Array:
        """How far shifts of the output within its room can move a scalar answer, to first order.

        Args:
          room: from `room`.
          slope: derivative of the answer by the output.
          kappa: deviation of a row, in units of the tolerance.
        """
        del room, slope, kappa
        return jnp.zeros(())

    def steepest(self, room: Any, slope: Array, kappa: float) -> Array:
        """The shift of the output that lowers the answer most; arguments as of `reach`."""
        del room, kappa
        return jnp.zeros_like(slope)

    def shifted(
        self, operands: list[Array], out: Array, shift: Array, eps: float, kappa: float
    ) -> Array:
        """The output of a cheat that uses up its room, given the shift from `steepest`."""
        del operands, shift, eps, kappa
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What a rule proposes: to commit to an equation.

    Attributes:
      form: how the output is tested.
      operands: the values that the test is given.
      far: the operand that is projected, if the form has one.
      covers: names of equations that the claim tests; they are then not discontinuities.
      absorbs: an earlier claim that this one tests, so that it need not be one.
    """

    form: Form
    operands: tuple[Atom, ...]
    far: Atom | None = None
    covers: frozenset[str] = frozenset()
    absorbs: Equation | None = None


class View(Protocol):
    """What a rule can ask about a program.

    Attributes:
      graph: of the whole function.
      draws: random vectors of the check.
    """

    graph: Graph
    draws: int

    def known(self, atom: Atom) -> bool:
        """Whether a value depends on parameters only."""
        ...

    def exact(self, atom: Atom) -> bool:
        """Whether honest devices compute the same bits, unless a discontinuity flipped."""
        ...

    def bound(self, atom: Atom) -> FixedPoint | None:
        """The bound of a value for which floats are exact, such as an integer."""
        ...

    def claimed(self, equation: Equation) -> bool:
        """Whether an earlier equation is a claim."""
        ...


class Rule(Protocol):
    """Decides whether an equation becomes a claim of one kind."""

    def __call__(self, equation: Equation, view: View) -> Proposal | None:
        """A proposal, or None if the equation is not a claim of this kind."""
        ...
