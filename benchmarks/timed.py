"""An honest run of a model, and its check as benchmarks time it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from blake3 import blake3

from verifiable import challenge, program
from verifiable.check.compiled import CheckArguments
from verifiable.key import VerifierKey
from verifiable.report import Report, Verdict
from verifiable.submission import Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An honest run and the key that it is checked with."""

    key: VerifierKey
    inputs: tuple[Any, ...]
    submission: Submission

    @classmethod
    def of(cls, compiled: program.Program, params: Any, inputs: tuple[Any, ...]) -> Run:
        """Run a program, and make a key for it."""
        submission = jax.block_until_ready(compiled.prove(params, *inputs))
        key = compiled.setup(params, challenge.secret())
        return cls(key=key, inputs=inputs, submission=submission)

    def check(self, compiled: program.Program) -> Any:
        """`Program.check`."""
        s = self.submission
        return accepted(compiled.check(self.key, *self.inputs, y=s.y, trace=s.trace)).y

    def verify(self, compiled: program.Program) -> Any:
        """`Program.verify`: the same after the hash of the trace."""
        s = self.submission
        return accepted(compiled.verify(self.key, *self.inputs, s, commitment=s.commitment)).y

    def hash(self) -> list[bytes]:
        """BLAKE3 of what `verify` hashes, on all cores."""
        arrays = jax.tree.leaves((self.submission.y, self.submission.trace.values))
        return [
            blake3(np.ravel(a).view(np.uint8).data, max_threads=blake3.AUTO).digest()
            for a in arrays
        ]

    def temporaries(self, compiled: program.Program) -> tuple[float, int]:
        """Temporaries of a compiled check: as a fraction of its arguments, and in bytes."""
        arguments = CheckArguments.of(
            self.key, self.inputs, self.submission.y, self.submission.trace
        )
        # The functions that `check` calls, at the same time and on the same arguments.
        parts: Any = compiled.compiled_check.parts
        with jax.enable_x64(True):
            memory = [part.lower(arguments).compile().memory_analysis() for part in parts]
        nbytes = sum(m.temp_size_in_bytes for m in memory)
        return nbytes / sum(x.nbytes for x in jax.tree.leaves(arguments)), nbytes


def accepted(report: Report) -> Report:
    """The report, which must accept."""
    assert report.verdict is Verdict.ACCEPT, report
    return report


def nbytes(tree: Any) -> int:
    """Bytes of all arrays of a tree."""
    return sum(a.nbytes for a in jax.tree.leaves(tree))
