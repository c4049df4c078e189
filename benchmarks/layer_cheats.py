"""Devices that forge claims in some layers, and go on with what they claim.

Everything else of such a run is as it has to be, so an audit that does not look at a forged unit
accepts, and one that does rejects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from verifiable import program
from verifiable.check import execute
from verifiable.claims.claim import Claim
from verifiable.claims.products.product import Product
from verifiable.jaxpr import interpret
from verifiable.jaxpr.effects import CUT
from verifiable.report import Detection
from verifiable.trace import Trace

KEY, VALUE, LAST = 1, 2, -1  # places among the products of a layer, in order
STEPS = 60  # of the search for a forged row that steers


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCheat:
    """What a device forges.

    Attributes:
      name: of the cheat.
      layers: the layers that it is wrong in, of how many there are.
      units: places among the products of the layer; none for what it passes on.
      rows: whether all rows are wrong, or the first.
      met: the probability that an audit meets it.
    """

    name: str
    layers: Callable[[int], range]
    units: tuple[int, ...]
    rows: bool = False
    met: Callable[[Detection], float]


def _middle(layers: int) -> range:
    return range(layers // 2, layers // 2 + 1)


CHEATS = (
    LayerCheat(
        name="one unit",
        layers=_middle,
        units=(LAST,),
        met=lambda found: found.choosing,
    ),
    LayerCheat(
        name="a token's keys and values in one layer",
        layers=lambda n: range(n // 3, n // 3 + 1),
        units=(KEY, VALUE),
        met=lambda found: found.choosing,
    ),
    LayerCheat(
        name="a token's keys and values in all layers",
        layers=range,
        units=(KEY, VALUE),
        met=lambda found: found.everywhere,
    ),
    LayerCheat(
        name="half of the layers",
        layers=lambda n: range(n // 2),
        units=(LAST,),
        rows=True,
        met=lambda found: found.lazy(0.5),
    ),
    LayerCheat(
        name="a cut",
        layers=_middle,
        units=(),
        met=lambda found: found.choosing,
    ),
)

STEERING = LayerCheat(
    name="a value row that steers the next token",
    layers=_middle,
    units=(VALUE,),
    met=lambda found: found.choosing,
)
"""The first token's values in one layer, searched until the likeliest token is another."""

Place = tuple[Claim, int | None]  # a claim, and its iteration if it has several
Added = Mapping[int, np.ndarray[Any, Any]]  # what is added to claims, by index


class Forging:
    """A device that adds to some claims, and goes on with what it claims."""

    def __init__(self, *, compiled: program.Program, honest: Trace):
        """The device, and what an honest one committed to."""
        self._compiled, self._honest = compiled, honest

    def added(self, cheat: LayerCheat) -> Added:
        """What a cheat adds, in rows of more than all rounding; empty without such claims."""
        found: dict[int, np.ndarray[Any, Any]] = {}
        for claim, trip in self.places(cheat):
            own = np.asarray(self._honest.values[claim.index])
            more = found.setdefault(claim.index, np.zeros(own.shape, own.dtype))
            at = () if trip is None else (trip,)
            rows = (slice(None) if cheat.rows else 0,) * (own[at].ndim - 1)
            more[at + rows] = 1 + np.max(np.abs(own[at]))
        return found

    def steering(self, params: Any, inputs: Any) -> Added:
        """A value row after which the largest output is another; empty if none is found."""
        [(claim, trip)] = self.places(STEERING)
        own = np.asarray(self._honest.values[claim.index])
        place = (0,) * (len(own.shape) - 1) if trip is None else (trip, *(0,) * (own.ndim - 2))
        zeros = {claim.index: np.zeros(own.shape, own.dtype)}

        def logits(row: Any) -> Any:
            given = {claim.index: jnp.asarray(zeros[claim.index]).at[place].set(row)}
            return self._executed(params, inputs, given)[0][0].ravel()

        before = np.asarray(jax.jit(logits)(np.zeros_like(own[place])))
        top = int(np.argmax(before))

        def lead(row: Any, other: Any) -> Any:
            found = logits(row)
            return found[other] - found[top], found

        ascend = jax.jit(jax.grad(lead, has_aux=True))
        row, other = np.zeros_like(own[place]), int(np.argsort(before)[-2])
        size = np.linalg.norm(own[place]) / 4
        for _ in range(STEPS):
            slope, found = (np.asarray(x) for x in ascend(row, other))
            if int(np.argmax(found)) != top:
                zeros[claim.index][place] = row
                return zeros
            row = row + (size / max(np.linalg.norm(slope), 1e-30) * slope).astype(row.dtype)
        return {}

    def __call__(self, params: Any, inputs: Any, added: Added) -> tuple[Any, Trace]:
        """Answer and trace."""
        outputs, found = self._run(params, inputs, dict(added))
        values = tuple(found[c.index] for c in self._compiled.claims)
        return self._compiled.unflatten(outputs), Trace(values=values)

    def places(self, cheat: LayerCheat) -> list[Place]:
        """Where a cheat is wrong; empty if there are no such claims."""
        names = self._compiled.layers
        wrong = [self._of(n, names[n], cheat) for n in cheat.layers(len(names))]
        return [place for places in wrong for place in places]

    def _of(self, number: int, name: str, cheat: LayerCheat) -> list[Place]:
        """The units of a layer, or its cut."""
        claims = self._compiled.claims
        scanned = any(c.trips for c in claims)
        own = [c for c in claims if (c.trips if scanned else c.name.startswith(f"{name}/"))]
        trip = number if scanned else None
        if not cheat.units:
            return [(c, trip) for c in own if c.primitive == CUT][:1]
        products = [c for c in own if isinstance(c.form, Product)]
        return [(products[unit], trip) for unit in cheat.units]

    @cached_property
    def _run(self) -> Callable[..., Any]:
        return jax.jit(self._executed)

    def _executed(self, params: Any, inputs: Any, given: Any) -> Any:
        env, block = self._compiled.bind(params, inputs), self._compiled.function.block
        return execute.execute(block, self._compiled.analysis, env, emit=_moved, given=given)


def _moved(claim: Claim, equation: Any, env: Any, here: Any) -> tuple[list[Any], Any]:
    """The outputs of a claim, with what is added to them."""
    outputs, committed = execute.honest(claim, equation, env)
    if here is None:
        return outputs, committed
    out = outputs[0] + here
    if claim.transpose is not None:
        [env[claim.transpose.outputs[0]]] = interpret.apply(claim.transpose, [out])
    return [out, *outputs[1:]], out
