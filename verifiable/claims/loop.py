"""The form of a claim that is a whole loop: the device runs it, and the verifier replays it.

The equation has bodies, which read values from around it. So `reads` and `run` stand for the
inputs of the equation and for `evaluate`, and the operands of the test are found by `replay`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from verifiable.claims.form import Form
from verifiable.claims.statistic import Deviation
from verifiable.jaxpr import interpret
from verifiable.jaxpr.blocks import Array, Atom, Env, Equation


class LoopForm(Form):
    """How what is committed of a loop is tested."""

    @property
    @abstractmethod
    def reads(self) -> Sequence[Atom]:
        """Values that a replay of the loop reads."""

    @abstractmethod
    def run(self, equation: Equation, env: Env, apply: interpret.Apply) -> list[Array]:
        """The outputs of the loop on a device; the last array returned is what is packed.

        Args:
          equation: the loop.
          env: values that it reads.
          apply: evaluates an equation without bodies.
        """

    @abstractmethod
    def replay(
        self,
        equation: Equation,
        env: Env,
        committed: Array,
        eps: float,
        limit: int,
        apply: interpret.Apply,
    ) -> tuple[list[Array], Sequence[Array], Array]:
        """Outputs of a loop with what was committed, operands of the test, and whether it was cut.

        Args:
          equation: the loop.
          env: values of `reads`.
          committed: any array of the shape and type that the form packs.
          eps: tolerance of the claim.
          limit: the most trips.
          apply: evaluates an equation without bodies.
        """

    @abstractmethod
    def effect(
        self, equation: Equation, env: Env, eps: float, limit: int, apply: interpret.Apply
    ) -> Deviation:
        """How far what is read after the loop is from what the verifier's own loop leads to.

        Args:
          equation: the loop.
          env: what `replay` takes, and the outputs that it returns.
          eps: tolerance of the claim.
          limit: the most trips.
          apply: evaluates an equation without bodies.

        Returns:
          For each row of the claim what the outputs are with what was committed, and the interval
          within the slack of the verifier's own, empty if its loop is cut short.
        """
