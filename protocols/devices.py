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

from protocols.models import Model, Params, Tokens
from verifiable import program, trace

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
    """Apply `change(path, kernel)` to every linear layer's kernel; leave all else as it is."""

    def visit(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return jnp.asarray(change(name, np.asarray(leaf))) if name.endswith("kernel") else leaf

    return jax.tree_util.tree_map_with_path(visit, model.params)


def int4(name: str, kernel: Array) -> Array:
    """Round to 4-bit integers with one scale per 32 weights, as on-device runtimes do."""
    groups = kernel.reshape(-1, 32, kernel.shape[1])
    scale = np.abs(groups).max(axis=1, keepdims=True) / 7
    levels = np.clip(np.rint(groups / np.where(scale == 0, 1, scale)), -8, 7)
    return (levels * scale).astype(np.float32).reshape(kernel.shape)


def float16(name: str, kernel: Array) -> Array:
    """Keep 11 bits of every weight: half the memory, and on many chips twice the speed."""
    return kernel.astype(np.float16).astype(np.float32)


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

    return jax.tree.map(redraw, model.params)


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
    change: Callable[[Array], None], name: str = "mlp/up"
) -> Callable[[Job], Submission]:
    """Return a device that changes one claim, in place, in the middle of the model."""

    def run(job: Job) -> Submission:
        y, honest = job.execute(job.model.params, *job.inputs)
        index = find_claim(job.program, f"layer{job.model.layers // 2}/{name}")
        claims = list(honest.claims)
        claims[index] = np.array(claims[index])
        change(claims[index])
        return submit(y, dataclasses.replace(honest, claims=tuple(claims)))

    return run


def find_claim(compiled: program.Program, scope: str) -> int:
    """Return the index of the one claim of a named scope. Raises ValueError for none or several."""
    found = [i for i, c in enumerate(compiled.claims) if f"{c.name}/".startswith(f"{scope}/")]
    if len(found) != 1:
        raise ValueError(f"{len(found)} claims are called {scope}")
    return found[0]


def one_element(claim: Array) -> None:
    """Change one number by a hundredth of its row."""
    claim[0, 1, 7] += 0.01 * np.linalg.norm(claim[0, 1])


def equal_and_opposite(claim: Array) -> None:
    """Change two numbers of one row so that their sum stays: random signs miss it half the time."""
    step = 0.01 * np.linalg.norm(claim[0, 1])
    claim[0, 1, 3] += step
    claim[0, 1, 11] -= step


def not_a_number(claim: Array) -> None:
    """Put NaN where a comparison with a tolerance would be false both ways."""
    claim[0, 1, 7] = np.nan


def infinity(claim: Array) -> None:
    """Put an infinity, which makes every norm of its row infinite."""
    claim[0, 1, 7] = np.inf


def overflow(claim: Array) -> None:
    """Fill a row with finite numbers whose squares are not."""
    claim[0, 1] = 3e38


def flipped_signs(claim: Array) -> None:
    """Flip the sign of the smaller half of all numbers."""
    small = np.abs(claim) < np.median(np.abs(claim))
    claim[small] *= -1


def only_the_largest(claim: Array) -> None:
    """Keep one number in ten, the largest, and send zeros for the others."""
    claim[np.abs(claim) < np.quantile(np.abs(claim), 0.9)] = 0


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
    return submit(y, dataclasses.replace(honest, claims=honest.claims[:-1]))


def changed_after_commitment(job: Job) -> Submission:
    """Commit to the cheap model's trace, and send the right one when it is asked for."""
    cheap = with_params(functools.partial(kernels, change=int4))(job)
    return dataclasses.replace(job.run(), commitment=cheap.commitment)


DEVICES = (
    Device("honest, compiled", True, jitted),
    Device("honest, op by op", True, op_by_op),
    Device("last layer skipped", False, with_params(without_last_layer)),
    Device("weights rounded to int4", False, with_params(functools.partial(kernels, change=int4))),
    Device(
        "weights rounded to float16",
        False,
        with_params(functools.partial(kernels, change=float16)),
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
