"""The exact check of int8 products against the check of f32 ones of the same shape.

*contraction*: the compiled test of one claim `[128, 2048] @ [2048, 8192]`, with its projection
made beforehand. *program*: the whole host call `Program.check` of two such layers, 2048 to 8192 to
2048, between which activations are clipped (f32) or scaled, rounded and narrowed to int8. The
float check has 16 draws; the exact one has the one draw of a secret challenge, or the two of a
public one, in limbs of as many bits as keep every sum below 2^53: two limbs for the operands and
five for the claim, each a column of a float64 product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.harness import Row, interleaved_medians
from verifiable import challenge, policy, program
from verifiable.claims.contraction import Contraction
from verifiable.claims.products import freivalds
from verifiable.claims.products.product import contraction
from verifiable.jaxpr import from_jax
from verifiable.report import Verdict

CLAIM = "The exact check of an int8 product costs at most three times the check of an f32 one."
KINDS = ("float32", "int8")


def rows(quick: bool) -> Iterator[Row]:
    """Measure one contraction, then a program of two."""
    tokens, width, hidden = (32, 256, 1024) if quick else (128, 2048, 8192)
    repeats = 5 if quick else 31
    shape = f"[{tokens}x{width}]@[{width}x{hidden}]"
    bar = None if quick else "<= 3"
    checks = {
        f"{name} {kind}": one_contraction(kind, tokens, width, hidden, draw)
        for name, draw in (("secret", secret()), ("public", public()))
        for kind in KINDS
    }
    yield from compare(f"contraction {shape}", checks, repeats, bar)
    checks = {f"secret {kind}": two_layers(kind, tokens, width, hidden) for kind in KINDS}
    yield from compare(f"program {shape} and back", checks, repeats, bar)


def compare(
    case: str, checks: dict[str, Callable[[], Any]], repeats: int, bar: str | None
) -> Iterator[Row]:
    """Seconds of each check, and how many times an f32 check an exact one takes."""
    seconds = interleaved_medians(checks, repeats)
    for name, value in seconds.items():
        yield Row(f"{case} {name}", "seconds_check", value, "s")
    for name in dict.fromkeys(name.partition(" ")[0] for name in checks):
        ratio = seconds[f"{name} int8"] / seconds[f"{name} float32"]
        yield Row(f"{case} {name}", "ratio", ratio, "1", bar)


def secret() -> challenge.Challenge:
    """One draw for an exact check."""
    return challenge.secret()


def public() -> challenge.Challenge:
    """Two draws for an exact check."""
    log = challenge.CommitmentLog()
    log.append(bytes(32))
    beacon = challenge.Beacon(chain="benchmark", round=1, value=bytes(32))
    zero = dict.fromkeys(("program", "policy", "parameters"), bytes(32))
    return challenge.public(log.close(chain="benchmark", closed_at=0), beacon, **zero)


def data(kind: str, *shape: int) -> np.ndarray[Any, Any]:
    """Activations or weights."""
    rng = np.random.default_rng(shape)
    if kind == "int8":
        return rng.integers(-128, 128, shape, dtype=np.int8)
    return rng.standard_normal(shape, np.float32) * np.float32(shape[0] ** -0.5)


def product(a: Any, b: Any) -> Any:
    """A matrix product, of int8 into int32."""
    return lax.dot(a, b, preferred_element_type=jnp.int32 if a.dtype == jnp.int8 else None)


def one_contraction(
    kind: str, tokens: int, width: int, hidden: int, draw: challenge.Challenge
) -> Callable[[], Any]:
    """The compiled test of one claim."""
    near, far = data(kind, tokens, width), data(kind, width, hidden)
    [equation] = from_jax.trace(product, near, far)[0].block.equations
    form = contraction(equation)
    assert isinstance(form, Contraction)
    out = jax.jit(product)(near, far)
    eps = policy.DEFAULT.eps_of(form)
    limit = freivalds.limit(1e-9, tokens, policy.DEFAULT.draws)
    with jax.enable_x64(True):
        names = form.vectors(far_known=True)
        g = jnp.asarray(freivalds.vectors(draw, names, policy.DEFAULT.draws))
        arrays = (jnp.asarray(near), freivalds.project(form, jnp.asarray(far), g, eps=eps), out, g)
        test = jax.jit(
            lambda near, projection, out, g: freivalds.test(
                form, near, projection, out, g, eps=eps, limit=limit
            )
        )
        assert test(*arrays).passed

    def call() -> Any:
        with jax.enable_x64(True):
            return test(*arrays)

    return call


def two_layers(kind: str, tokens: int, width: int, hidden: int) -> Callable[[], Any]:
    """`Program.check` of a program with two claims."""

    def fn(params: Any, x: Any) -> Any:
        hidden = product(x, params["up"])
        if kind == "int8":
            scaled = hidden.astype(jnp.float32) * 2.0**-13
            hidden = jnp.clip(jnp.round(scaled), -127, 127).astype(jnp.int8)
        else:
            hidden = jnp.clip(hidden, -1, 1)
        return product(hidden, params["down"])

    params = {"up": data(kind, width, hidden), "down": data(kind, hidden, width)}
    x = jnp.asarray(data(kind, tokens, width))
    compiled = program.compile(fn, params, x)
    y, trace = jax.jit(compiled.execute)(params, x)
    key = compiled.setup(params, challenge.secret())

    def call() -> Any:
        report = compiled.check(key, x, y=y, trace=trace)
        assert report.verdict is Verdict.ACCEPT, report
        return report.y

    return call
