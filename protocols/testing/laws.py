"""What a coordinator's ledger may hold, and how often one that samples may pay for a cheat.

    honest-punished        an honest worker was punished
    cheat-paid             a worker was paid for what it is not to be paid for
    paid-twice             one worker was paid twice for one job
    signed-twice           two statements about the same thing were signed
    verdict-before-close   a commitment counted that came after a verdict on its job had left

The first two are the laws; the others are how the second is broken in time. Where runs are audited
by chance, cheats are paid sometimes. If each of n is paid independently with probability at most p,

    P(at least k are paid) <= sum_{i >= k} C(n, i) p^i (1 - p)^(n - i),

and a coordinator is at fault if this is below the error that the test allows.
"""

from __future__ import annotations

from typing import Final

from verifiable.errors import Structured

HONEST_PUNISHED: Final = "honest-punished"
CHEAT_PAID: Final = "cheat-paid"
PAID_TWICE: Final = "paid-twice"
SIGNED_TWICE: Final = "signed-twice"
VERDICT_BEFORE_CLOSE: Final = "verdict-before-close"
HONEST_UNPAID: Final = "honest-unpaid"
"""Only where a test asks for it: a worker was not paid although nothing went wrong."""
PAID_TOO_OFTEN: Final = "paid-too-often"


class LawBroken(Structured, AssertionError):
    """The coordinator under test has broken a law.

    Attributes:
      law: a code, of those above.
    """

    def __init__(self, law: str, what: str):
        """Keep the code; `what` says what happened."""
        self.law = law
        super().__init__(f"{law}: {what}")


def tail(paid: int, plays: int, most: float) -> float:
    """Probability that at least `paid` of `plays` cheats are paid, each with probability `most`.

    Args:
      paid: k, of 0 .. n.
      plays: n, at least 1.
      most: p.

    Raises:
      ValueError: numbers or a probability that are none.
    """
    from scipy.special import bdtrc  # noqa: PLC0415 - slow to load

    if not 0 <= paid <= plays or plays < 1 or not 0 <= most <= 1:
        raise ValueError(f"no such plays: {paid} of {plays} with probability {most}")
    return 1.0 if paid == 0 else float(bdtrc(paid - 1, plays, most))


def require_rate(paid: int, plays: int, *, most: float, error: float) -> None:
    """Require that no more cheats were paid than chance explains.

    Args:
      paid: cheats that were paid.
      plays: cheats that were tried, independently.
      most: the probability with which the coordinator states that one is paid, at most.
      error: probability with which a coordinator that keeps its word may fail here.

    Raises:
      LawBroken: too many.
      ValueError: as `tail`.
    """
    chance = tail(paid, plays, most)
    if chance < error:
        raise LawBroken(
            PAID_TOO_OFTEN,
            f"{paid} of {plays} cheats were paid; with probability {most:g} each, so many are with "
            f"probability {chance:.2g}",
        )
