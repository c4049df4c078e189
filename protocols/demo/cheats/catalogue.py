"""Every cheat as a named row, and which cheats a model of each precision meets."""

from __future__ import annotations

from protocols.demo.cheats.computations import (
    another_model,
    another_user,
    before_fine_tuning,
    float8,
    float16,
    int4,
    permuted_heads,
    scaled,
    swapped_tokens,
    truncated,
    with_inputs,
    with_kernels,
    with_params,
    without_last_layer,
)
from protocols.demo.cheats.submissions import (
    along_the_gradient,
    changed_after_commitment,
    false_output,
    missing_claim,
    nan_output,
    with_claim,
)
from protocols.demo.devices import HONEST, Device, Run
from verifiable.testing import changes


def _cheats(*rows: tuple[str, Run]) -> tuple[Device, ...]:
    return tuple(Device(name, honest=False, run=run) for name, run in rows)


CHEATS = _cheats(
    ("last layer skipped", with_params(without_last_layer)),
    ("weights rounded to int4", with_kernels(int4)),
    ("weights rounded to float8", with_kernels(float8)),
    ("weights before fine-tuning", with_kernels(before_fine_tuning)),
    ("another model, same shapes", with_params(another_model)),
    ("attention heads permuted", with_params(permuted_heads)),
    ("activations scaled by 1000", with_params(scaled)),
    ("another user's input", with_inputs(another_user)),
    ("prompt truncated", with_inputs(truncated)),
    ("tokens swapped", with_inputs(swapped_tokens)),
    ("one element changed", with_claim(changes.one_element)),
    ("two opposite changes in a row", with_claim(changes.equal_and_opposite)),
    ("signs of small values flipped", with_claim(changes.flipped_signs)),
    ("small values set to zero", with_claim(changes.only_the_largest)),
    ("NaN in a claim", with_claim(changes.not_a_number)),
    ("infinity in a claim", with_claim(changes.infinity)),
    ("norm overflowed by 3e38", with_claim(changes.overflow)),
    ("false output, honest trace", false_output),
    ("NaN output, honest trace", nan_output),
    ("one claim left out", missing_claim),
    ("commitment to another trace", changed_after_commitment),
)
# Cheats that only some precisions make possible or worthwhile.
FLOATS = _cheats(("shifts along the gradient", along_the_gradient))
ROUNDED = _cheats(
    ("one rounding off by one level", with_claim(changes.one_level, rounding=True)),
    ("scale doubled, values halved", with_claim(changes.halved, rounding=True)),
    ("rounded in the cheat's favour", with_claim(changes.rounded_down, rounding=True)),
)
BY_PRECISION = {
    "f32": (*_cheats(("weights rounded to float16", with_kernels(float16))), *FLOATS),
    "bf16": (*FLOATS, *ROUNDED),
    "f16": (*FLOATS, *ROUNDED),
    "w8a8": (*ROUNDED, *_cheats(("accumulator off by 2^31", with_claim(changes.wrapped)))),
}


def lineup(precision: str) -> tuple[Device, ...]:
    """Return all devices for a model of that precision: the honest ones, then the cheats."""
    return (*HONEST, *CHEATS, *BY_PRECISION[precision])
