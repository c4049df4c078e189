"""Setup: the key of one program, or of several that share parameters and policy."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from verifiable._version import __version__
from verifiable.challenge import Challenge
from verifiable.check.excerpts import found_in
from verifiable.check.self_test import require_right
from verifiable.check.settings import on_host
from verifiable.check.trees import parameter_root
from verifiable.errors import require_type
from verifiable.jaxpr.blocks import Array
from verifiable.key import KeyHeader, VerifierKey


@on_host
def make_key(
    programs: Sequence[Any], params: Any, challenge: Challenge, *, name: bytes
) -> VerifierKey:
    """Make a key with what each program needs of the parameters, equal arrays and blocks once.

    Args:
      programs: one or several `program.Program`s of one policy; that module imports this one, so
        the type is not named here.
      params: the parameters.
      challenge: for the random vectors.
      name: 32-byte id of the program or family, for the header.

    Raises:
      Miscompiled: the compiler errs in a check, as its first key shows (`self_test`).
      TypeError: a leaf is not an array, or `challenge` is not a `Challenge`.
      ValueError: another tree, shape or dtype, or a parameter that is compared is subnormal.
    """
    require_type("challenge", challenge, Challenge)
    params = programs[0].conform_params(params)
    root = parameter_root(params)
    found: dict[str, Array] = {}
    for program in programs:
        program.require_normal(params)
        arrays = functools.partial(program.compiled_setup.arrays, params, challenge)
        own = arrays(have=found)
        require_right(program, params, arrays, own)
        found |= own
    names = [program.compiled_setup.layout.names for program in programs]
    excerpts = found_in(found, set(found).difference(set(found).intersection(*names)))
    header = KeyHeader(
        program=name,
        policy=programs[0].policy.id,
        parameters=root,
        challenge=challenge.id,
        version=__version__,
        excerpts=excerpts,
    )
    absent = {e.name for e in excerpts}
    return VerifierKey(header, {n: a for n, a in found.items() if n not in absent})
