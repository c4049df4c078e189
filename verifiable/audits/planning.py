"""The cheapest mix of replication and audits that reaches a given error.

Every option assumes the worst case of the bad fraction f among those who answer: they collude, and
cheat whenever it costs most. Costs are per finished job, and include jobs that start over:

    vote             the policies of `voting.quorum`, no audits
    audited-quorum   k runs; if they agree, audited at rate q; if they differ, audited one by one
                     until an audit passes. With B ~ Binomial(k, f) and V = f^k q d (void, starts
                     over),
                       error   (f^k (1 - q d) + (1 - d) E[B / (k - B + 1); 0 < B < k]) / (1 - V)
                       audits  (q (f^k + (1 - f)^k) + E[(k + 1) / (k - B + 1); 0 < B < k]) / (1 - V)
                     k = 1, q = 1 is a single run that is always audited
    adaptive         trusted workers run alone, windows of their results audited (`voting.trust`)
    deterrence       a single run, audited at the least rate at which the stake deters (`stakes`);
                     its error holds only for workers that do not accept losing their stake

q is the least rate that reaches the error; each option's other parameters are the cheapest.
Derivations: specs/sampling.md, section 7.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from verifiable.audits.probabilities import binomial_tail, least_integer
from verifiable.audits.stakes import Terms
from verifiable.voting.quorum import FirstToMatch, FixedSize, QuorumPolicy, Sequential
from verifiable.voting.trust import Adaptive

_MOST_BALLOTS = 4001
_LEAST_AMOUNT, _MOST_AMOUNT, _MOST_COUNT = 1e-100, 1e100, 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Economy:
    """Costs, gains and limits; all amounts in one unit of the caller's choice.

    An amount is 0, or from 1e-100 to 1e100, so that no option's cost overflows.

    Attributes:
      run_cost: cost of one run, above 0.
      audit_cost: cost of one audit.
      detection: probability that the audit of a wrong result fails, above 0.
      stake: amount that a worker loses if a cheat is detected; 0 for none.
      gain: gain of one cheat to a worker.
      reward: payment for a result.
      false_reject: probability that the audit of an honest result fails, as measured.
      outstanding: the most unsettled results on one stake.
      window: the most results of a trusted worker that may wait for their audits.
      probation: checks that a worker must pass before it is trusted.
      lifetime: results that an honest identity delivers on average.

    Raises:
      ValueError: a field is out of range; the message begins with its name.
    """

    run_cost: float = 1.0
    audit_cost: float = 0.1
    detection: float = 1.0
    stake: float = 0.0
    gain: float = 0.0
    reward: float = 0.0
    false_reject: float = 0.0
    outstanding: int = 1
    window: int = 200
    probation: int = 10
    lifetime: float = 1000.0

    def __post_init__(self) -> None:
        """Require values that every option can use."""
        amounts = f"from {_LEAST_AMOUNT:g} to {_MOST_AMOUNT:g} in the unit chosen"
        for name in ("run_cost", "audit_cost", "stake", "gain", "reward"):
            value, free = getattr(self, name), name != "run_cost"
            if not (_LEAST_AMOUNT <= value <= _MOST_AMOUNT or (value == 0.0 and free)):
                raise _out_of_range(name, f"0, or {amounts}" if free else amounts, value)
        if not 0.0 < self.detection <= 1.0:
            raise _out_of_range("detection", "above 0 and at most 1", self.detection)
        if not 0.0 <= self.false_reject <= 1.0:
            raise _out_of_range("false_reject", "from 0 to 1", self.false_reject)
        for name in ("outstanding", "window", "probation"):
            if not 1 <= getattr(self, name) <= _MOST_COUNT:
                raise _out_of_range(name, "from 1 to 2^53", getattr(self, name))
        if not self.probation <= self.lifetime < math.inf:
            raise _out_of_range("lifetime", f"finite, and at least {self.probation}", self.lifetime)


def _out_of_range(name: str, expected: str, value: float) -> ValueError:
    text = repr(value)
    return ValueError(f"{name} must be {expected}, got {text[:40]}{'...' * (len(text) > 40)}")


class NoOption(ValueError):
    """No mix of replication and audits reaches the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One way to reach the error.

    Attributes:
      name: stable name of the kind.
      policy: the voting policy; None if no vote helps, at a bad fraction of 1/2 or more.
      audit_rate: share of the results accepted without dispute that are audited.
      runs: expected runs per job.
      audits: expected audits per job.
      cost: expected cost per job, in the unit of the `Economy`.
      error: upper bound on the probability that an accepted result is wrong.
      deters: whether the option rests on stakes. If so, `error` is the bound for a bad fraction
        that accepts losing its stake; other workers do not cheat.
      how: the option in a sentence.
    """

    name: str
    policy: QuorumPolicy | None
    audit_rate: float
    runs: float
    audits: float
    cost: float
    error: float
    deters: bool
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Options, cheapest first.

    Attributes:
      bad: assumed bad fraction among those who answer.
      error: the error to reach.
      options: the options that reach it, by ascending cost; never empty.
      assumes: the assumptions of all options, in words.
    """

    bad: float
    error: float
    options: tuple[Option, ...]
    assumes: str

    @property
    def best(self) -> Option:
        """The cheapest."""
        return self.options[0]


def plan(
    *, bad: float, error: float, economy: Economy | None = None, rational: bool = False
) -> Plan:
    """Find the cheapest mix of replication and audits.

    Args:
      bad: bad fraction among those who answer (`voting.bad_among_answers`); from 1/2 on, only
        audits help.
      error: upper bound on the probability of accepting a wrong result.
      economy: costs and limits; the defaults of `Economy` if None.
      rational: whether to offer deterrence, which assumes that bad workers avoid losing a stake.

    Returns:
      The options that reach the error, cheapest first.

    Raises:
      ValueError: an argument is out of range.
      NoOption: no option reaches the error.
    """
    if not 0.0 < bad < 1.0 or not 0.0 < error < 1.0:
        raise ValueError(f"bad and error must be above 0 and below 1, got {bad} and {error}")
    economy = Economy() if economy is None else economy
    options = [*_audited(bad, error, economy)]
    if bad < 0.5:
        options += [*_votes(bad, error, economy), *_adaptive(bad, error, economy)]
    if rational:
        options += _deterrence(bad, economy)
    if not options:
        raise NoOption(
            f"no option reaches an error of {error:g} with a bad fraction of {bad:g} and audits "
            f"that detect with probability {economy.detection:g}"
        )
    return Plan(
        bad=bad,
        error=error,
        options=tuple(sorted(options, key=lambda option: option.cost)),
        assumes=f"every answer is bad with probability at most {bad:g}, given those before it (a "
        "fraction of those who answer: include availability); seats and audits are drawn with "
        "unforeseeable randomness; an honest result passes its audit",
    )


def _votes(bad: float, error: float, economy: Economy) -> Iterator[Option]:
    policies: list[tuple[str, QuorumPolicy, str]] = []
    matches = least_integer(
        lambda m: binomial_tail(2 * m - 1, bad, m) <= error, start=1, limit=_MOST_BALLOTS // 2
    )
    if matches is not None:
        size = 2 * matches - 1
        policies += [
            ("fixed-size", FixedSize(bad=bad, size=size), f"{size} runs, {matches} must agree"),
            (
                "first-to-match",
                FirstToMatch(bad=bad, matches=matches),
                f"runs until {matches} agree, {size} at most",
            ),
        ]
    # Four times the expected length leaves almost no vote undecided.
    length = math.log(error) / math.log(bad / (1.0 - bad)) / (1.0 - 2.0 * bad)
    if 4.0 * length <= _MOST_BALLOTS:
        margin = Sequential(bad=bad, error=error, limit=max(500, math.ceil(4.0 * length)))
        policies.append(
            ("sequential", margin, f"runs until one answer leads the others by {margin.margin}")
        )
    for name, policy, how in policies:
        bound = policy.assurance
        yield Option(
            name=name,
            policy=policy,
            audit_rate=0.0,
            runs=bound.runs,
            audits=0.0,
            cost=bound.runs * economy.run_cost,
            error=bound.error,
            deters=False,
            how=how,
        )


def audited_quorum(
    *, bad: float, size: int, audit_rate: float, detection: float
) -> tuple[float, float, float]:
    """Error, runs and audits per finished job of k audited runs; formulas at the module's head.

    Args:
      bad: bad fraction f among those who answer.
      size: number of runs, k.
      audit_rate: probability q that a result is audited if all runs agree.
      detection: probability d that the audit of a wrong result fails.

    Returns:
      Upper bound on the error, expected runs, and expected audits.
    """
    f, k = bad, size
    agree_bad = f**k
    disputes = [math.comb(k, b) * f**b * (1.0 - f) ** (k - b) for b in range(1, k)]
    slips = math.fsum(p * b / (k - b + 1) for b, p in enumerate(disputes, 1))
    tries = math.fsum(p * (k + 1) / (k - b + 1) for b, p in enumerate(disputes, 1))
    finished = 1.0 - agree_bad * audit_rate * detection
    wrong = agree_bad * (1.0 - audit_rate * detection) + (1.0 - detection) * slips
    audits = audit_rate * (agree_bad + (1.0 - f) ** k) + tries
    return min(1.0, wrong / finished), k / finished, audits / finished


def _audited(bad: float, error: float, economy: Economy) -> Iterator[Option]:
    found: list[Option] = []
    d = economy.detection
    for size in range(1, 64):
        unaudited, _, _ = audited_quorum(bad=bad, size=size, audit_rate=0.0, detection=d)
        slope = d * bad**size * (1.0 - error)
        # Where audits detect next to nothing, no rate makes up for what is lacking.
        lacking = max(0.0, unaudited - error)
        rate = lacking / slope if slope > 0.0 else math.inf if lacking > 0.0 else 0.0
        if rate <= 1.0:
            rate = min(1.0, rate * (1.0 + 1e-12))
            reached, runs, audits = audited_quorum(bad=bad, size=size, audit_rate=rate, detection=d)
            cost = runs * economy.run_cost + audits * economy.audit_cost
            number = "a single run" if size == 1 else f"{size} runs, all of which must agree"
            disputes = "" if size == 1 else "; disputes settled by audits"
            found.append(
                Option(
                    name="audited-quorum",
                    policy=FixedSize(bad=bad, size=size, quorum=size) if bad < 0.5 else None,
                    audit_rate=rate,
                    runs=runs,
                    audits=audits,
                    cost=cost,
                    error=reached,
                    deters=False,
                    how=f"{number}, audited at rate {rate:.3g}{disputes}",
                )
            )
        if rate == 0.0:
            break
    # Every size has its own rate; only the cheapest combination is offered.
    yield from sorted(found, key=lambda option: option.cost)[:1]


def _adaptive(bad: float, error: float, economy: Economy) -> Iterator[Option]:
    try:
        newcomers = Sequential(bad=bad, error=error)
    except ValueError:
        return

    price = economy.audit_cost / economy.run_cost

    def policy(audits: int, price: float = price) -> Adaptive:
        return Adaptive(
            bad=bad,
            newcomers=newcomers,
            probation=economy.probation,
            window=economy.window,
            audits=audits,
            detection=economy.detection,
            audit_cost=price,
            lifetime=economy.lifetime,
        )

    audits = least_integer(
        lambda u: policy(u).assurance.error <= error, start=1, limit=economy.window
    )
    if audits is None:
        return
    chosen = policy(audits)
    bound = chosen.assurance
    # Runs and audits apart, without a difference of two nearly equal costs.
    runs, least_price = policy(audits, 0.0).assurance.runs, max(price, 1e-3)
    yield Option(
        name="adaptive",
        policy=chosen,
        audit_rate=audits / economy.window,
        runs=runs,
        audits=(policy(audits, least_price).assurance.runs - runs) / least_price,
        cost=bound.runs * economy.run_cost,
        error=bound.error,
        deters=False,
        how=f"a single run by a worker that passed {economy.probation} checks; {audits} audits of "
        f"every {economy.window} results, all void where one fails; newcomers' jobs go to a vote",
    )


def _deterrence(bad: float, economy: Economy) -> Iterator[Option]:
    def terms(rate: float) -> Terms:
        return Terms(
            gain=economy.gain,
            reward=economy.reward,
            cost=economy.run_cost,
            audit_rate=rate,
            detection=economy.detection,
            false_reject=economy.false_reject,
            outstanding=economy.outstanding,
        )

    if economy.gain <= 0.0 or terms(1.0).least_stake > economy.stake:
        return
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (low, middle) if terms(middle).least_stake <= economy.stake else (middle, high)
    if terms(high).greatest_stake < economy.stake:
        return
    error, runs, audits = audited_quorum(
        bad=bad, size=1, audit_rate=high, detection=economy.detection
    )
    yield Option(
        name="deterrence",
        policy=FixedSize(bad=bad, size=1) if bad < 0.5 else None,
        audit_rate=high,
        runs=runs,
        audits=audits,
        cost=runs * economy.run_cost + audits * economy.audit_cost,
        error=error,
        deters=True,
        how=f"a single run, audited at rate {high:.3g}: with a stake of {economy.stake:g} and "
        f"{economy.outstanding} results unsettled, no number of cheats pays",
    )
