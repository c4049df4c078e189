"""Devices of the demo: two that do what they are asked to, and what the others send instead.

The cheats are what somebody who is paid per answer would send, at the lowest cost:

- *another computation*: cheaper or older weights, fewer layers, somebody else's input. The device
  runs it in full and commits to it, so that its trace is consistent with itself throughout.
- *another trace*: an honest run in which one claim was changed before it was committed.
- *another message*: an honest trace beside a false answer, or one changed after its commitment.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from protocols.demo.models import Model, Tokens
from protocols.demo.models.precision import Params, map_kernels
from verifiable import program, trace
from verifiable.claims.rounding import Rounding

Array: TypeAlias = "np.ndarray[Any, Any]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a device is given: the compiled program, the parameters and one user's input.

    `execute` is the program's, jitted once for all devices of this process.
    """

    model: Model
    program: program.Program
    execute: Callable[..., tuple[Any, trace.Trace]]
    inputs: Tokens

    def run(self, params: Params | None = None, inputs: Tokens | None = None) -> Submission:
        """Execute and commit, on other parameters or another input where given."""
        own = self.model.params if params is None else params
        return submit(*self.execute(own, *(self.inputs if inputs is None else inputs)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a device sends: its answer, its trace, and the commitment to both."""

    y: Any
    trace: Any
    commitment: trace.Commitment


@dataclass(frozen=True, slots=True)
class Device:
    """One device: what it is called, whether it does what it was asked to, and what it does."""

    name: str
    honest: bool
    run: Callable[[Job], Submission]


def submit(y: Any, values: trace.Trace) -> Submission:
    """Commit to an answer and its trace, and send all three."""
    return Submission(y=y, trace=values, commitment=trace.commit(y, values).commitment)


# What devices do. An honest one runs what it was asked to run.


def jitted(job: Job) -> Submission:
    """Run the program compiled as a whole."""
    return job.run()


def op_by_op(job: Job) -> Submission:
    """Run one operation at a time: other kernels, hence other rounding, and as honest."""
    with jax.disable_jit():
        return submit(*job.program.execute(job.model.params, *job.inputs))


# Another computation: a full and consistent run of something else.


def with_params(change: Callable[[Model], Params]) -> Callable[[Job], Submission]:
    """Return a device that runs other parameters of the same shapes."""
    return lambda job: job.run(params=change(job.model))


def with_inputs(change: Callable[[Job], Tokens]) -> Callable[[Job], Submission]:
    """Return a device that runs another input of the same shape."""
    return lambda job: job.run(inputs=change(job))


def kernels(model: Model, change: Callable[[str, Array], Array]) -> Params:
    """Apply `change(path, kernel)` to every trained kernel, then prepare them as the model does."""
    return model.prepare(
        map_kernels(model.trained, lambda name, k: jnp.asarray(change(name, np.asarray(k))))
    )


def int4(name: str, kernel: Array) -> Array:
    """Round to 4-bit integers with one scale per 32 weights, as on-device runtimes do."""
    groups = kernel.reshape(-1, 32, kernel.shape[1])
    scale = np.abs(groups).max(axis=1, keepdims=True) / 7
    levels = np.clip(np.rint(groups / np.where(scale == 0, 1, scale)), -8, 7)
    return (levels * scale).astype(np.float32).reshape(kernel.shape)


def float16(name: str, kernel: Array) -> Array:
    """Keep 11 bits of every weight: half the memory, and on many chips twice the speed."""
    return kernel.astype(np.float16).astype(np.float32)


def float8(name: str, kernel: Array) -> Array:
    """Keep 4 bits of every weight and its exponent: half the memory of bfloat16."""
    return kernel.astype(jnp.float8_e4m3fn).astype(np.float32)


def before_fine_tuning(name: str, kernel: Array) -> Array:
    """Return weights of last week: off by a rank-one update of one percent of their norm."""
    rng = np.random.default_rng(len(name))
    u, v = (rng.standard_normal(n).astype(np.float32) for n in kernel.shape)
    update = u[:, None] * v[None, :]
    return kernel + update * np.float32(0.01 * np.linalg.norm(kernel) / np.linalg.norm(update))


def without_last_layer(model: Model) -> Params:
    """Every product of the last layer is zero, so there is nothing left in it to compute."""
    last = f"layer{model.layers - 1}/"
    return kernels(model, lambda name, kernel: kernel * (not name.startswith(last)))


def scaled(model: Model) -> Params:
    """Activations a thousand times too large, so that a tolerance relative to them grows too."""
    target = "layer0/mlp/up/kernel"
    return kernels(model, lambda name, kernel: kernel * np.float32(1000 if name == target else 1))


def permuted_heads(model: Model) -> Params:
    """Queries of each attention head go to the next head; no value is lost or invented."""

    def roll(name: str, kernel: Array) -> Array:
        if not name.endswith("query/kernel"):
            return kernel
        heads = kernel.reshape(kernel.shape[0], model.heads, -1)
        return np.roll(heads, 1, axis=1).reshape(kernel.shape)

    return kernels(model, roll)


def another_model(model: Model) -> Params:
    """Fresh random weights with the mean and spread of the right ones, array by array."""
    rng = np.random.default_rng(1)

    def redraw(leaf: Any) -> Any:
        right = np.asarray(leaf)
        noise = rng.standard_normal(right.shape, dtype=np.float32)
        return jnp.asarray(noise * right.std() + right.mean())

    return model.prepare(jax.tree.map(redraw, model.trained))


def another_user(job: Job) -> Tokens:
    """Answer the question that another user had asked, which is already answered."""
    for text in ("Please book a table for two at eight tonight.", "What does it cost to fly home?"):
        ids, mask = (np.zeros_like(part) for part in job.inputs)
        for part, other in zip((ids, mask), job.model.tokenize([text]), strict=True):
            length = min(part.shape[1], other.shape[1])
            part[:, :length] = other[:, :length]
        if not (np.array_equal(ids, job.inputs[0]) and np.array_equal(mask, job.inputs[1])):
            return ids, mask
    raise ValueError("the user asked what every other user asked")


def swapped_tokens(job: Job) -> Tokens:
    """Move every token by one position, within its text."""
    ids, mask = job.inputs
    rolled = ids.copy()
    for row, length in zip(rolled, mask.sum(axis=1), strict=True):
        row[:length] = np.roll(row[:length], 1)
    return rolled, mask


def truncated(job: Job) -> Tokens:
    """Read the first half of each text only: attention costs a quarter."""
    ids, mask = job.inputs
    kept = (np.arange(mask.shape[1]) < mask.sum(axis=1, keepdims=True) // 2).astype(mask.dtype)
    return ids * kept, kept


# Another trace: an honest run, one claim of which is changed before it is committed.


def with_claim(
    change: Callable[[Array], Array], name: str = "mlp/up", *, rounding: bool = False
) -> Callable[[Job], Submission]:
    """Return a device that changes one claim in the middle of the model.

    `change` gets a copy. The claim is the product of that scope, or the rounding before it.
    """

    def run(job: Job) -> Submission:
        y, honest = job.execute(job.model.params, *job.inputs)
        scope = f"layer{job.model.layers // 2}/{name}"
        index = find_claim(job.program, scope, rounding=rounding)
        claims = list(honest.values)
        claims[index] = change(np.array(claims[index]))
        return submit(y, dataclasses.replace(honest, values=tuple(claims)))

    return run


def find_claim(compiled: program.Program, scope: str, *, rounding: bool = False) -> int:
    """Return the index of the one claim of a named scope: its product, or the rounding before it.

    Raises ValueError for none or several.
    """
    products = [
        i
        for i, c in enumerate(compiled.claims)
        if f"{c.name}/".startswith(f"{scope}/") and not isinstance(c.form, Rounding)
    ]
    if len(products) != 1:
        raise ValueError(f"{len(products)} claims are called {scope}")
    if not rounding:
        return products[0]
    before = compiled.claims[: products[0]]
    return max(i for i, c in enumerate(before) if isinstance(c.form, Rounding))


def one_element(claim: Array) -> Array:
    """Change one number by a hundredth of its row."""
    claim[0, 1, 7] += _step(claim)
    return claim


def equal_and_opposite(claim: Array) -> Array:
    """Change two numbers of one row so that their sum stays: random signs miss it half the time."""
    claim[0, 1, 3] += _step(claim)
    claim[0, 1, 11] -= _step(claim)
    return claim


def _step(claim: Array) -> Any:
    norm = np.linalg.norm(claim[0, 1].astype(np.float64))
    return np.asarray(max(1.0, 0.01 * norm) if claim.dtype.kind == "i" else 0.01 * norm).astype(
        claim.dtype
    )


def not_a_number(claim: Array) -> Array:
    """Put NaN where a comparison with a tolerance would be false both ways."""
    return _with_float(claim, np.nan)


def infinity(claim: Array) -> Array:
    """Put an infinity, which makes every norm of its row infinite."""
    return _with_float(claim, np.inf)


def _with_float(claim: Array, value: float) -> Array:
    """Integers have no such values: whoever wants to send one sends floats."""
    if claim.dtype.kind == "i":
        claim = claim.astype(np.float32)
    claim[0, 1, 7] = value
    return claim


def overflow(claim: Array) -> Array:
    """Fill a row with finite numbers whose squares are not, or the largest integers."""
    claim[0, 1] = np.iinfo(claim.dtype).max if claim.dtype.kind == "i" else 3e38
    return claim


def flipped_signs(claim: Array) -> Array:
    """Flip the sign of the smaller half of all numbers."""
    small = np.abs(claim) < np.median(np.abs(claim))
    claim[small] *= -1
    return claim


def only_the_largest(claim: Array) -> Array:
    """Keep one number in ten, the largest, and send zeros for the others."""
    claim[np.abs(claim) < np.quantile(np.abs(claim), 0.9)] = 0
    return claim


def wrapped(claim: Array) -> Array:
    """Move one accumulator by 2^31, which arithmetic modulo 2^32 misses half the time."""
    claim[0, 1, 7] = (np.int64(claim[0, 1, 7]) + 2**31).astype(claim.dtype)
    return claim


def one_level(claim: Array) -> Array:
    """Round one element to the next level: integers by one, halves by thirty-two last bits."""
    bits = claim.view(np.int16 if claim.dtype.itemsize == 2 else np.int8)
    bits[0, 1, 7] += np.int8(32 if bits.dtype == np.int16 else 1 if bits[0, 1, 7] < 100 else -1)
    return claim


def halved(claim: Array) -> Array:
    """Halve all values, as if their scale had been doubled."""
    return (claim // 2 if claim.dtype.kind == "i" else claim * claim.dtype.type(0.5)).astype(
        claim.dtype
    )


def rounded_down(claim: Array) -> Array:
    """Take every other element a level lower, always in the cheat's favour: halves by 1/32."""
    other = claim[..., ::2]
    lower = other - 1 if claim.dtype.kind == "i" else other.astype(np.float32) * (1 - 2.0**-5)
    claim[..., ::2] = lower.astype(claim.dtype)
    return claim


def along_the_gradient(job: Job) -> Submission:
    """Shift every claim so as to lower the answer most, a little further than the corridor.

    Up to the corridor such shifts may pass: the report says how far they move an answer.
    """
    bound = job.program.bound
    kappa = 1.2 * (bound.kappa() if bound else 1.0)
    y, claims = job.program.attack(
        job.model.params, *job.inputs, answer=lambda y: y[0, 0].astype(jnp.float32), kappa=kappa
    )
    return submit(y, claims)


# Another message.


def false_output(job: Job) -> Submission:
    """Send the trace of an honest run beside the answer of another."""
    y, honest = job.execute(job.model.params, *job.inputs)
    other, _ = job.execute(job.model.params, *another_user(job))
    del y
    return submit(other, honest)


def nan_output(job: Job) -> Submission:
    """Send an answer that compares with nothing."""
    y, honest = job.execute(job.model.params, *job.inputs)
    return submit(jnp.full_like(y, jnp.nan), honest)


def missing_claim(job: Job) -> Submission:
    """Leave the last claim out and hope that nobody looks for it."""
    y, honest = job.execute(job.model.params, *job.inputs)
    return submit(y, dataclasses.replace(honest, values=honest.values[:-1]))


def changed_after_commitment(job: Job) -> Submission:
    """Commit to the cheap model's trace, and send the right one when it is asked for."""
    cheap = with_params(functools.partial(kernels, change=int4))(job)
    return dataclasses.replace(job.run(), commitment=cheap.commitment)


HONEST = (
    Device("honest, compiled", True, jitted),
    Device("honest, op by op", True, op_by_op),
)
CHEATS = (
    Device("last layer skipped", False, with_params(without_last_layer)),
    Device("weights rounded to int4", False, with_params(functools.partial(kernels, change=int4))),
    Device(
        "weights rounded to float8", False, with_params(functools.partial(kernels, change=float8))
    ),
    Device(
        "weights before fine-tuning",
        False,
        with_params(functools.partial(kernels, change=before_fine_tuning)),
    ),
    Device("another model, same shapes", False, with_params(another_model)),
    Device("attention heads permuted", False, with_params(permuted_heads)),
    Device("activations scaled by 1000", False, with_params(scaled)),
    Device("another user's input", False, with_inputs(another_user)),
    Device("prompt truncated", False, with_inputs(truncated)),
    Device("tokens swapped", False, with_inputs(swapped_tokens)),
    Device("one element changed", False, with_claim(one_element)),
    Device("two opposite changes in a row", False, with_claim(equal_and_opposite)),
    Device("signs of small values flipped", False, with_claim(flipped_signs)),
    Device("small values set to zero", False, with_claim(only_the_largest)),
    Device("NaN in a claim", False, with_claim(not_a_number)),
    Device("infinity in a claim", False, with_claim(infinity)),
    Device("norm overflowed by 3e38", False, with_claim(overflow)),
    Device("false output, honest trace", False, false_output),
    Device("NaN output, honest trace", False, nan_output),
    Device("one claim left out", False, missing_claim),
    Device("commitment to another trace", False, changed_after_commitment),
)
# What only some precisions make possible or worth while.
FULL = (
    Device(
        "weights rounded to float16",
        False,
        with_params(functools.partial(kernels, change=float16)),
    ),
    Device("shifts along the gradient", False, along_the_gradient),
)
ROUNDED = (
    Device("one rounding off by one level", False, with_claim(one_level, rounding=True)),
    Device("scale doubled, values halved", False, with_claim(halved, rounding=True)),
    Device("rounded in the cheat's favour", False, with_claim(rounded_down, rounding=True)),
)
INTEGERS = (Device("accumulator off by 2^31", False, with_claim(wrapped)),)
BY_PRECISION = {
    "f32": FULL,
    "bf16": (*FULL[1:], *ROUNDED),
    "f16": (*FULL[1:], *ROUNDED),
    "w8a8": (*ROUNDED, *INTEGERS),
}


def lineup(precision: str) -> tuple[Device, ...]:
    """All devices of a model of that precision: the honest ones, then the cheats."""
    return (*HONEST, *CHEATS, *BY_PRECISION[precision])
