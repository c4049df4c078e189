"""The verifier key: what a coordinator needs instead of the weights. It must stay secret.

A key holds the random vectors of a challenge and, for every weight W of a claimed contraction,
the projection W r. W is public, so the key gives r away, and a device that knows r can cheat: the
key is never printed or pickled, and its file has mode 0600. It also holds the parameters that
replayed equations need.

A file or `to_bytes` is safetensors. Its header names the program, the policy, the root of the
parameters, the challenge (by a hash that reveals nothing) and the version of the library.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from verifiable._version import __version__
from verifiable.errors import received_bytes, require_bytes32

Stored: TypeAlias = Shaped[Any, "..."]
"""Array of numpy or JAX, of any shape and of a type that safetensors has a name for."""

FORMAT = "verifiable key 1"
_STORED_AS: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(bool),
    "BF16": jnp.dtype(jnp.bfloat16),
    "C64": np.dtype(np.complex64),
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
}
_STORED = frozenset(dtype.name for dtype in _STORED_AS.values())
_DIGESTS = ("program", "policy", "parameters", "challenge")


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """An array of a key that is not stored, since it is a block of one that is.

    Attributes:
      name: of the array.
      whole: name of the other one.
      start: where the block begins in it.
    """

    name: str
    whole: str
    start: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHeader:
    """What a key was made for.

    Attributes:
      program: 32-byte id of the program or family.
      policy: 32-byte policy id.
      parameters: 32-byte Merkle root of the parameters.
      challenge: 32-byte id of the challenge; keys of one challenge retire together.
      version: version of the library that made it.
      excerpts: arrays of members of a family that are blocks of arrays of the key.
    """

    program: bytes
    policy: bytes
    parameters: bytes
    challenge: bytes
    version: str
    excerpts: tuple[Excerpt, ...] = ()

    def __post_init__(self) -> None:
        """Raises as `require_bytes32` for a digest that is none."""
        for name in _DIGESTS:
            require_bytes32(name, getattr(self, name))

    def require(self, *, program: bytes, policy: bytes, parameters: bytes | None = None) -> None:
        """Require a key that was made for this check, so that a stale key never blames a device.

        Args:
          program: 32-byte id of the program that checks.
          policy: 32-byte id of its policy.
          parameters: 32-byte root of the parameters that the job names; None if unknown.

        Raises:
          ValueError: the key was made for others or by another version; names both sides of each.
        """
        wanted = {"program": program, "policy": policy, "parameters": parameters}
        faults = [
            f"the key was made for {name} {theirs.hex()}, this check has {mine.hex()}"
            for name, mine in wanted.items()
            if mine is not None and (theirs := getattr(self, name)) != mine
        ]
        if self.version != __version__:
            faults.append(f"the key was made by version {self.version}, this is {__version__}")
        if faults:
            raise ValueError(
                f"{'; '.join(faults)}. Make a key with Program.setup from the program, policy and "
                "parameters of the job; the key of a family is for Family.verify"
            )


@dataclass(frozen=True, eq=False)
class VerifierKey:
    """The precomputed half of a check: a secret, never printed, copied or pickled.

    It is a pytree, so that it passes through `jit` and `vmap`.

    Attributes:
      header: what it was made for.
      arrays: by name; `vectors/...`, `kept/...`, `projected/...` and `moves/...` (specs/program.md,
        section 7).
    """

    header: KeyHeader
    arrays: dict[str, Stored] = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Size of all arrays in bytes."""
        return sum(int(a.size) * a.dtype.itemsize for a in self.arrays.values())

    def __str__(self) -> str:
        """The header's ids; never the content."""
        return (
            f"verifier key of {self.nbytes} bytes for program {self.header.program.hex()[:16]}, "
            f"parameters {self.header.parameters.hex()[:16]}"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key to a file that only its owner can read; it must not exist yet.

        Raises:
          FileExistsError: there is a file already; it is left as it is.
          TypeError: a parameter that the key keeps has a type that safetensors has no name for.
        """
        data = self.to_bytes()
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise FileExistsError(
                error.errno,
                "a key is never written over another file: choose a new path, or remove the file "
                "once its epoch has ended",
                os.fspath(path),
            ) from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> VerifierKey:
        """Read a key that `save` wrote.

        Raises:
          PermissionError: others than the owner can read the file.
          ValueError: the file is not a verifier key of this format.
        """
        if not Path(path).is_file():
            raise ValueError(f"expected the file of a verifier key, but {path} is not a file")
        mode = stat.S_IMODE(Path(path).stat().st_mode)
        if os.name == "posix" and mode & 0o077:
            raise PermissionError(
                f"{path} has mode {mode:04o}, but a key that others can read is no secret: "
                "make a new key for the next epoch, or set mode 0600 if no other user can read it"
            )
        try:
            return VerifierKey.from_bytes(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{path} is not a verifier key: {error}") from error

    def to_bytes(self) -> bytes:
        """The key as bytes, for another process of the same owner. They are the secret.

        Raises:
          TypeError: a parameter that the key keeps has a type that safetensors has no name for.
        """
        for name, array in self.arrays.items():
            if array.dtype.name not in _STORED:
                raise TypeError(f"{name!r} is {array.dtype.name}, which safetensors cannot store")
        arrays = {name: np.asarray(a) for name, a in self.arrays.items()}
        metadata = {"format": FORMAT, "version": self.header.version}
        for name in _DIGESTS:
            metadata[name] = getattr(self.header, name).hex()
        metadata["excerpts"] = json.dumps(
            [[e.name, e.whole, e.start] for e in self.header.excerpts]
        )
        return save(arrays, metadata)

    @staticmethod
    def from_bytes(data: bytes | bytearray | memoryview) -> VerifierKey:
        """Read what `to_bytes` wrote.

        Raises:
          ValueError: not a verifier key of this format.
          TypeError: `data` is of another type.
        """
        data = received_bytes(data)
        try:
            tensors = deserialize(data)
        except SafetensorError as error:
            raise ValueError(f"not in the format safetensors: {error}") from error
        # The library has checked the header, but returns no metadata.
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"it has format {metadata.get('format')!r}, expected {FORMAT!r}")
        absent = [f.name for f in fields(KeyHeader) if f.name not in metadata]
        if absent:
            raise ValueError(f"it has no {absent} in its header")
        digests = {n: bytes.fromhex(metadata[n]) for n in _DIGESTS}
        excerpts = _excerpts(metadata["excerpts"])
        header = KeyHeader(**digests, version=metadata["version"], excerpts=excerpts)
        with jax.enable_x64(True):
            # `jnp.asarray` would compile a copy for each shape, anew after every restart.
            arrays = {name: jax.device_put(_array(name, tensor)) for name, tensor in tensors}
        return VerifierKey(header, arrays)

    def __reduce__(self):
        """Refuse to be copied or pickled by accident."""
        raise TypeError("a verifier key cannot be copied or pickled: write to_bytes() or save()")


def _excerpts(text: str) -> tuple[Excerpt, ...]:
    """Read the excerpts of a header."""
    try:
        read = [(name, whole, tuple(start)) for name, whole, start in json.loads(text)]
    except TypeError as error:
        raise ValueError(f"its excerpts are not [name, whole, start] each: {error}") from error
    for name, whole, start in read:
        if {type(name), type(whole)} != {str} or any(type(i) is not int or i < 0 for i in start):
            raise ValueError(f"it has a malformed excerpt: {[name, whole, start]}")
    return tuple(Excerpt(name=name, whole=whole, start=start) for name, whole, start in read)


def _array(name: str, tensor: Mapping[str, Any]) -> Shaped[np.ndarray, "*shape"]:
    dtype = _STORED_AS.get(tensor["dtype"])
    if dtype is None:
        raise ValueError(f"{name!r} has type {tensor['dtype']}, which no key holds")
    return np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])


jax.tree_util.register_dataclass(VerifierKey, data_fields=["arrays"], meta_fields=["header"])


def require_arrays(
    arrays: Mapping[str, Stored], wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> None:
    """Require the arrays of a key by name, shape and dtype; its header is not consulted.

    Args:
      arrays: of the key.
      wanted: shapes and dtypes by name, for a secret challenge.

    Raises:
      ValueError: an array is missing or in excess, or has another shape or dtype.
    """
    if wanted.keys() != arrays.keys():
        differing = sorted(wanted.keys() ^ arrays.keys())
        raise ValueError(f"the key lacks, or has in excess, the arrays {differing}")
    for name, want in wanted.items():
        have = arrays[name]
        if (have.shape, have.dtype) == (want.shape, want.dtype):
            continue
        # A public challenge has more exact draws, the last dimension; all else is fixed.
        exact = want.dtype == jnp.uint64
        shapes = [x.shape[:-1] if exact else x.shape for x in (have, want)]
        if shapes[0] != shapes[1] or have.dtype != want.dtype:
            raise ValueError(
                f"array {name!r} of the key has shape {have.shape} and type {have.dtype}, "
                f"not {want.shape} and {want.dtype}"
            )
