"""Self-test: the compiled check against op-by-op evaluation, before any device is judged.

A compiler can be wrong, and a wrong check rejects honest devices or accepts cheats. So the first
`setup` of a program makes a random run on the parameters, op by op (`jax.disable_jit`), and gives
it to the compiled check. That check computes every operand and output by its own compiled glue and
tests them against the run with the key's random vectors: if each is within half of its limit, the
compiled glue and the glue op by op agree in every row, to within the tolerance of the check.

If one is not, rounding may explain it: the check of that run is evaluated op by op, as it is and
with other rounding (`jaxpr.perturb`). What stays unexplained is a miscompilation, and `locate`
finds the first equation whose compiled value differs.

A run that is not finite, takes too many steps, or cannot be evaluated op by op proves nothing. Then
other inputs are tried, and at last the test is skipped.

The test takes most of the time of a first `setup`, so its steps are logged, at level INFO.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from verifiable.check import execute, locate
from verifiable.check.compiled import CheckArguments
from verifiable.check.locate import Inconclusive, Watch
from verifiable.check.replay.parameter_values import WIDEN
from verifiable.check.replay.replay import Findings
from verifiable.check.schedule import Strategy
from verifiable.check.specification import Target
from verifiable.claims.statistic import retested
from verifiable.errors import Miscompiled
from verifiable.jaxpr.blocks import Array
from verifiable.jaxpr.effects import is_float
from verifiable.jaxpr.perturb import Noise

_LOG = logging.getLogger(__name__)

Setup = Callable[..., dict[str, Array]]

REPLAYS = 8
_ENOUGH = 0.5  # of the limit: a worse measure has to be explained
_MARGIN = 4.0  # times what perturbed replays show
_SCALES = (1.0, 1.0, 0.1)  # of random floats, one for each attempt
_IMPLEMENTATIONS = {"fry": "threefry2x32", "rbg": "rbg", "urbg": "unsafe_rbg"}
_PLAIN = Strategy(save_memory=False, tile_bytes=0, column_bytes=0, cheap_first=False)


class Reading(NamedTuple):
    """What a check measured of one claim or output, over all iterations.

    Attributes:
      worst: the largest statistic, as a fraction of its limit.
      holds: which other conditions of acceptance hold.
      trip: the first iteration in which something fails, or the worst.
    """

    worst: float
    holds: tuple[bool, ...]
    trip: int

    @property
    def suspect(self) -> bool:
        """Whether an honest run of the very same glue would have measured less."""
        return not (self.worst <= _ENOUGH and all(self.holds))

    def explained(self, others: Sequence[Reading]) -> bool:
        """Whether the measures of perturbed replays are as bad."""
        worst = max(o.worst for o in others)
        broken = zip(self.holds, *(o.holds for o in others), strict=True)
        return self.worst <= _ENOUGH + _MARGIN * worst and all(
            b[0] or not all(b[1:]) for b in broken
        )


def measures(findings: Findings) -> dict[Target, Reading]:
    """What a check measured, by claim and output."""
    found: dict[Target, Reading] = {}
    for i, s in sorted(findings.statistics.items()):
        found[Target(output=False, index=i)] = _measure(
            s.worst, s.finite_claim, s.in_range, s.finite_operands
        )
    for i, o in sorted(findings.outputs.items()):
        found[Target(output=True, index=i)] = _measure(o.worst, o.finite, o.own_finite)
    return found


def _measure(worst: Array, *conditions: Array) -> Reading:
    ratios, *flags = (np.ravel(x) for x in (worst, *conditions))
    if not ratios.size:
        return Reading(0.0, tuple(True for _ in flags), 0)
    good = np.logical_and.reduce(flags)
    trip = int(np.argmax(ratios)) if np.all(good) else int(np.argmin(good))
    return Reading(float(np.max(ratios)), tuple(bool(np.all(f)) for f in flags), trip)


def require_right(program: Any, params: Any, setup: Setup, key: Mapping[str, Array]) -> None:
    """Require that the compiled check of a program agrees with its evaluation op by op.

    It is done once for each strategy, and not at all if the program was compiled without.

    Args:
      program: a `program.Program`; that module imports this one, so the type is not named here.
      params: the parameters, as at compile time.
      setup: makes the arrays of a key for them.
      key: what it made.

    Raises:
      Miscompiled: they differ by more than rounding explains.
    """
    if not program.self_test or program.strategy in program.tested:
        return
    began = time.monotonic()
    for attempt, scale in enumerate(_SCALES):
        try:
            found = _attempt(program, params, setup, key, np.random.default_rng(attempt), scale)
        except Inconclusive:
            continue
        if found is not None:
            raise found
        _LOG.info("self-test passed, after %.1f s", time.monotonic() - began)
        break
    else:
        _LOG.info("self-test skipped: no random run could be evaluated, or none was finite")
    program.tested.add(program.strategy)


def _attempt(
    program: Any,
    params: Any,
    setup: Setup,
    key: Mapping[str, Array],
    rng: np.random.Generator,
    scale: float,
) -> Miscompiled | None:
    _LOG.info("self-test of a new program: a random run is evaluated op by op")
    inputs = jax.tree.map(lambda s: random_array(s, rng, scale), program.inputs)
    with _op_by_op():
        env = program.bind(params, inputs)
        outputs, found = execute.execute(
            program.function.block, program.analysis, env, apply=Watch()
        )
    values = [found[c.index] for c in program.claims]
    _require_finite((outputs, values))
    run = CheckArguments(
        key=dict(key),
        inputs=program.conform_inputs(inputs),
        outputs=tuple(outputs),
        values=tuple(values),
    )
    check = program.compiled_check
    _LOG.info("self-test: the check of that run is compiled")
    found, _ = check.measure(run)
    for i, s in found.statistics.items():
        if not np.all(s.finite_operands):  # as a check would: a cheap form may leave it undecided
            found.statistics[i] = retested(s, check.second_look.retest(run, i), found.taken[i])
    measured = measures(found)
    suspects = {target: m for target, m in measured.items() if m.suspect}
    if not suspects:
        return None

    # Nearly always the first suspect is what is wrong: its values are recorded at once.
    first = next(iter(suspects))

    def replayed(watch: Watch) -> Findings:
        check = replace(program.compiled_check, strategy=_PLAIN)
        with _op_by_op():
            key = run.key | setup(moves=False, apply=watch)
            return jax.device_get(check.statistics(replace(run, key=key), apply=watch)[0])

    _LOG.info("self-test: the check is evaluated op by op, %d times", 1 + REPLAYS)
    levels = _levels(program, first)
    watches = _watches(program, levels)
    replays = [measures(replayed(watch)) for watch in watches]
    for target, mine in suspects.items():
        others = [r[target] for r in replays]
        if mine.explained(others):
            continue
        if target != first:
            levels = _levels(program, target)
            watches = _watches(program, levels)
            for watch in watches:
                replayed(watch)
        return _located(program, levels, watches, target, mine, others[0])
    return None


@contextmanager
def _op_by_op() -> Generator[None, None, None]:
    """Without compilation. What has no such evaluation proves nothing; other errors are ours."""
    try:
        with jax.disable_jit():
            yield
    except (NotImplementedError, jax.errors.JaxRuntimeError) as error:
        raise Inconclusive from error


def _noises(program: Any) -> Iterator[Noise]:
    """Half move each element by itself, half all of an equation with one sign."""
    losses, exact = dict(program.policy.losses), program.analysis.exact
    for i in range(REPLAYS):
        sizes = np.float32(WIDEN * (i % 2)), np.float32(WIDEN * (1 - i % 2))
        yield Noise(
            seed=jnp.uint32(i),
            independent=sizes[0],
            coherent=sizes[1],
            losses=losses,
            exact=exact,
        )


def _levels(program: Any, target: Target) -> list[locate.Level]:
    claim = None if target.output else program.claims[target.index]
    return locate.levels(program, claim, target.index)


def _watches(program: Any, levels: Sequence[locate.Level]) -> list[Watch]:
    """A plain evaluation and perturbed ones, which record the values at some levels."""
    equations = {e for level in levels for e in level.equations}
    watches = [Watch(noise=noise) for noise in (None, *_noises(program))]
    for watch in watches:
        watch.recorded = {e: [] for e in equations}
    return watches


def _located(
    program: Any,
    levels: Sequence[locate.Level],
    watches: Sequence[Watch],
    target: Target,
    mine: Reading,
    plain: Reading,
) -> Miscompiled:
    output, index = target.output, target.index
    claim = None if output else program.claims[index]
    records = [watch.recorded for watch in watches]
    found = locate.first_difference(levels, records, mine.trip, program.strategy)
    if found is not None:
        equation, compiled, op_by_op = found
        return Miscompiled(equation=equation, compiled=compiled, op_by_op=op_by_op)
    name = program.outputs[index].name if claim is None else claim.name
    return Miscompiled(
        equation=f"the test of {name}",
        compiled=f"{mine.worst:.3g} of its limit",
        op_by_op=f"{plain.worst:.3g} of it",
    )


def random_array(spec: Any, rng: np.random.Generator, scale: float = 1.0) -> Any:
    """A random input: floats normal, integers 0 or 1, as for masks and indices of any table.

    Args:
      spec: shape and dtype; random keys are dtypes too.
      rng: source of the numbers.
      scale: standard deviation of floats.
    """
    shape, dtype = spec.shape, spec.dtype
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        implementation = _IMPLEMENTATIONS[dtype.name.removeprefix("key<").removesuffix(">")]
        key = jax.random.key(int(rng.integers(2**31)), impl=implementation)
        return jax.random.split(key, shape)
    if not is_float(dtype):
        return rng.integers(0, 2, shape).astype(dtype)
    values = scale * rng.standard_normal(shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        values = values + 1j * scale * rng.standard_normal(shape)
    return values.astype(dtype)


def _require_finite(tree: Any) -> None:
    for leaf in jax.tree.leaves(tree):
        if is_float(leaf.dtype) and not bool(jnp.all(jnp.isfinite(leaf))):
            raise Inconclusive
