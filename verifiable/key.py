"""The verifier key: what a coordinator needs instead of the weights. Whoever sees it can cheat.

A key holds the random vectors of a challenge and, for every weight W of a claimed contraction,
the projection W r. W is public, so the key gives r away: it is never printed and its file has
mode 0600. Besides, it holds the parameters that replayed equations need.

The file is safetensors. Its header names the program, the policy, the root of the parameters, the
challenge (by a hash that reveals nothing) and the version of the library.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from verifiable._version import __version__

FORMAT = "verifiable key 1"
_STORED = frozenset(
    {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
    | {"bool", "float16", "bfloat16", "float32", "float64", "complex64"}
)
_DIGESTS = ("program", "policy", "parameters", "challenge")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHeader:
    """What a key was made for.

    Attributes:
      program: 32-byte program id.
      policy: 32-byte policy id.
      parameters: 32-byte Merkle root of the parameters.
      challenge: 32-byte id of the challenge; keys of one challenge retire together.
      version: version of the library that made it.
    """

    program: bytes
    policy: bytes
    parameters: bytes
    challenge: bytes
    version: str

    def __post_init__(self) -> None:
        """Digests have 32 bytes."""
        for name in _DIGESTS:
            if len(getattr(self, name)) != 32:
                raise ValueError(f"{name} has 32 bytes, got {len(getattr(self, name))}")

    def require(self, **ids: bytes) -> None:
        """Raise ValueError unless the key was made for these ids, by this version."""
        for name, mine in ids.items():
            theirs: bytes = getattr(self, name)
            if theirs != mine:
                raise ValueError(
                    f"the key was made for {name} {theirs.hex()[:16]}, this is {mine.hex()[:16]}"
                )
        if self.version != __version__:
            raise ValueError(
                f"the key was made by version {self.version}, this is {__version__}: make a new one"
            )


@dataclass(frozen=True, eq=False)
class VerifierKey:
    """The precomputed half of a check; a pytree, so that it passes through `jit` and `vmap`.

    Attributes:
      header: what it was made for.
      arrays: by name; `vectors/...`, `kept/...` and `projected/...`.
    """

    header: KeyHeader
    arrays: dict[str, Any] = field(repr=False)

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
          FileExistsError: there is a file already.
          TypeError: a parameter that the key keeps has a type that safetensors has no name for.
        """
        for name, array in self.arrays.items():
            if array.dtype.name not in _STORED:
                raise TypeError(f"{name!r} is {array.dtype.name}, which safetensors cannot store")
        arrays = {name: np.asarray(a) for name, a in self.arrays.items()}
        metadata = {"format": FORMAT, "version": self.header.version}
        for name in _DIGESTS:
            metadata[name] = getattr(self.header, name).hex()
        data = save(arrays, metadata)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
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
            raise ValueError(f"{path} is not a file")
        mode = stat.S_IMODE(Path(path).stat().st_mode)
        if os.name == "posix" and mode & 0o077:
            raise PermissionError(
                f"{path} has mode {mode:04o}, but a key that others can read is no secret: "
                "make a new key for the next epoch, or set mode 0600 if nobody could"
            )
        try:
            with safe_open(path, "numpy") as file:
                metadata = file.metadata() or {}
                names = list(file.keys())
                loaded = {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path} has format {metadata.get('format')!r}, not {FORMAT!r}")
        absent = [f.name for f in fields(KeyHeader) if f.name not in metadata]
        if absent:
            raise ValueError(f"{path} has no {absent} in its header")
        digests = {n: bytes.fromhex(metadata[n]) for n in _DIGESTS}
        header = KeyHeader(**digests, version=metadata["version"])
        with jax.enable_x64(True):
            arrays = {name: jnp.asarray(a) for name, a in loaded.items()}
        return VerifierKey(header, arrays)


jax.tree_util.register_dataclass(VerifierKey, data_fields=["arrays"], meta_fields=["header"])


def require_arrays(arrays: Mapping[str, Any], wanted: Mapping[str, jax.ShapeDtypeStruct]) -> None:
    """Raise ValueError unless a key holds what is wanted, whatever its header says."""
    if wanted.keys() != arrays.keys():
        differing = sorted(wanted.keys() ^ arrays.keys())
        raise ValueError(f"the key lacks, or has in excess, the arrays {differing}")
    for name, want in wanted.items():
        have = arrays[name]
        if (have.shape, have.dtype) == (want.shape, want.dtype):
            continue
        # A public challenge draws more often for exact checks; all else is fixed.
        exact = want.dtype == jnp.uint64
        shapes = [x.shape[:-1] if exact else x.shape for x in (have, want)]
        if shapes[0] != shapes[1] or have.dtype != want.dtype:
            raise ValueError(
                f"array {name!r} of the key has shape {have.shape} and type {have.dtype}, "
                f"not {want.shape} and {want.dtype}"
            )
