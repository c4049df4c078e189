"""A fleet of workers, honest, cheating, silent and copying, against the coordinator under test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from protocols.testing import laws
from protocols.testing.adapter import CoordinatorAdapter, Ledger
from protocols.testing.game import Game
from protocols.testing.pool import Agrees, Pool, undecidable
from protocols.testing.scenario import JobPlan, Role, Scenario, WorkerPlan
from verifiable.encoding import tagged_hash
from verifiable.program import Program
from verifiable.testing import cheats as catalogue
from verifiable.testing import parameters
from verifiable.testing.cheat import Cheat
from verifiable.testing.workload import Workload


@dataclass(frozen=True, eq=False)
class Fleet:
    """Workers of one program. Made by `fleet`.

    Attributes:
      pool: their runs, and the verdicts that they must get.
    """

    pool: Pool

    @property
    def cheats(self) -> tuple[str, ...]:
        """Names of the cheats that its workers try."""
        return tuple(self.pool.cheats)

    def play(
        self,
        make: Callable[[], CoordinatorAdapter],
        scenario: Scenario,
        *,
        sampled: bool = False,
        paying: bool = False,
    ) -> Ledger:
        """Play a scenario against a new coordinator, and require the laws.

        Args:
          make: the adapter of a new coordinator.
          scenario: what is played, such as one of `strategies.scenarios`.
          sampled: the coordinator audits by chance, so that a cheat may be paid: `measure` then
            says how often.
          paying: require too that an honest worker is paid if all its messages came in time, its
            run can be judged, and the coordinator was not killed. What others send may be late or
            lost: of a coordinator that votes, ask it where scenarios have no `faults`.

        Returns:
          What has left the coordinator.

        Raises:
          LawBroken: a law does not hold.
        """
        game = Game(pool=self.pool, scenario=scenario, adapter=make())
        game.play()
        game.require(sampled=sampled, paying=paying)
        return game.ledger

    def measure(
        self,
        make: Callable[[], CoordinatorAdapter],
        *,
        most: float,
        plays: int = 200,
        error: float = 1e-6,
        cheat: str | None = None,
        workers: int = 1,
    ) -> int:
        """Require that cheats are paid no more often than a coordinator that samples states.

        Each play has one cheating worker, and draws of its own, which follow from its number.

        Args:
          make: the adapter of a new coordinator.
          most: the stated probability that a cheat is paid, such as 1 - rate.
          plays: how many.
          error: probability with which a coordinator that keeps its word may fail.
          cheat: name of the cheat; by default, the run of other parameters.
          workers: of a job; all others are honest.

        Returns:
          How many cheats were paid.

        Raises:
          LawBroken: more than chance explains, or another law does not hold.
          ValueError: the cheat is none that can be paid for wrongly in this program.
        """
        role = Role.STALE if cheat is None else Role.CHEATING
        honest = tuple(WorkerPlan(role=Role.HONEST) for _ in range(workers - 1))
        job = JobPlan(workers=(WorkerPlan(role=role, cheat=cheat), *honest))
        paid = tried = 0
        for number in range(plays):
            seed = tagged_hash("play of a fleet", number.to_bytes(8))
            game = Game(pool=self.pool, scenario=Scenario(jobs=(job,), seed=seed), adapter=make())
            game.play()
            game.require(sampled=True)
            more, counted = game.paid_cheats()
            paid, tried = paid + more, tried + counted
        if tried != plays:
            raise ValueError(
                f"{cheat} changes nothing in {plays - tried} plays: choose another one"
            )
        laws.require_rate(paid, plays, most=most, error=error)
        return paid


def fleet(
    program: Program,
    params: Any,
    *inputs: tuple[Any, ...],
    newer: Any = None,
    cheats: Iterable[Cheat] | None = None,
    agrees: Agrees | None = None,
) -> Fleet:
    """A fleet of workers for a program.

    Their runs are made when a scenario needs them, and kept, so the first plays are the slowest.

    Args:
      program: the compiled program.
      params: its parameters.
      *inputs: the inputs of one or more jobs, each a tuple. Others of the same shapes are added:
        the first reversed, and the first with an infinity, on which no run can be judged.
      newer: other parameters of the same shapes, which some jobs ask for; by default the same, a
        hundredth off.
      cheats: what cheating workers choose from; by default the catalogue without those that
        compile a program of their own.
      agrees: `agrees(honest, answer) -> bool`, for a coordinator that compares answers and sees no
        trace: whether an answer, a pytree of arrays as the program returns it, is as good as the
        honest one by what the coordinator states. By default, the verdict on the trace decides.
        Write it anew: the coordinator's own comparison would share its mistakes.

    Raises:
      ValueError: no inputs.
      TypeError: a leaf is not an array.
    """
    if not inputs:
        raise ValueError("a fleet needs the inputs of a job: fleet(program, params, (x,))")
    first = Workload.of(program, params, *inputs[0])
    extra: Sequence[tuple[Any, ...] | None] = (first.other_inputs, undecidable(inputs[0]))
    chosen = catalogue.applicable(program) if cheats is None else tuple(cheats)
    return Fleet(
        Pool(
            program=program,
            versions=(params, parameters.before_fine_tuning(params) if newer is None else newer),
            inputs=[*inputs, *(x for x in extra if x is not None)],
            cheats={cheat.name: cheat for cheat in chosen},
            agrees=agrees,
        )
    )


def calm(*roles: Role, cheat: str | None = None) -> Scenario:
    """A scenario of one job in which nothing goes wrong but what the workers do.

    Args:
      *roles: of the workers.
      cheat: of those that cheat.
    """
    plans = tuple(WorkerPlan(role=role) for role in roles)
    named = tuple(replace(p, cheat=cheat if p.role is Role.CHEATING else None) for p in plans)
    return Scenario(jobs=(JobPlan(workers=named),))
