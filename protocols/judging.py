"""Judge evidence about any job, without anything of its accuser.

    file    what `Evidence.encode` returns
    job     `MODULE:FUNCTION` names a function of the judge's own, without arguments; it returns
            (program, params, inputs): the compiled program, and what the job was to run it on
    judge   decodes the file for that program, and decides

The function runs with the rights of whoever names it. The file is data, and proves nothing but what
it opens. A guilty judgement is about the worker that signed the commitment for this job: evidence
binds the commitment to nobody, and to no inputs.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, cast

from verifiable.check.judging.evidence import Evidence, Judgement, verify_evidence
from verifiable.errors import MalformedEncoding
from verifiable.program import Program

MOST_BYTES: Final = 2**28
"""The most bytes of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedJob:
    """The judge's own job.

    Attributes:
      name: says where it is from.
      program: compiled under the policy of the job.
      params: the parameters that the job names.
      inputs: of the job.
    """

    name: str
    program: Program
    params: Any
    inputs: tuple[Any, ...]

    @classmethod
    def load(cls, name: str) -> Self:
        """The job that a function of the judge's returns.

        Args:
          name: `MODULE:FUNCTION`; the module is looked for in the current folder too.

        Raises:
          ImportError: there is no such module, or it cannot be imported.
          ValueError: there is no such function, it raises, or it returns something else.
        """
        module, _, function = name.partition(":")
        if not (module and function):
            raise ValueError(f"a job is named as MODULE:FUNCTION, got {name!r}")
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)
        try:
            make = getattr(importlib.import_module(module), function, None)
            made = None if make is None else make()
        except ImportError:
            raise
        except Exception as error:
            raise ValueError(
                f"{name} raised {type(error).__name__}: {error}; call it in Python to see where"
            ) from error
        if make is None:
            raise ValueError(f"the module {module} has no function {function}")
        parts = cast("tuple[Any, ...]", made) if isinstance(made, tuple) else ()
        if len(parts) != 3 or not isinstance(parts[0], Program) or type(parts[2]) is not tuple:
            kinds = ", ".join(type(part).__name__ for part in parts) or type(made).__name__
            raise ValueError(
                f"{name} must return (program, params, inputs): a compiled Program, its parameters "
                f"(of a family, the member for the job's inputs) and the tuple of its inputs; it "
                f"returned {kinds}"
            )
        return cls(name=name, program=parts[0], params=parts[1], inputs=parts[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Evidence that was judged.

    Attributes:
      root: of the accused trace, 32 bytes.
      claim: the judge's name of the accused claim or output.
      trip: iteration of the scans around it.
      row: its row.
      judgement: what the judge found.
    """

    root: bytes
    claim: str
    trip: int
    row: int
    judgement: Judgement


def judge(data: bytes | bytearray | memoryview, job: JudgedJob) -> Judged:
    """Judge encoded evidence without key, challenge, or anything of its accuser.

    Raises:
      ValueError: the evidence is about another program or other parameters.
      VerificationError: it is malformed, or opens what was not committed to.
    """
    evidence = Evidence.decode(data, job.program)
    found = verify_evidence(evidence, job.program, job.params, *job.inputs)
    accused = (job.program.outputs if evidence.output else job.program.claims)[evidence.index]
    return Judged(
        root=evidence.commitment.root,
        claim=accused.name,
        trip=evidence.trip,
        row=evidence.row,
        judgement=found,
    )


def read(path: Path) -> bytes:
    """The bytes of a file, of which no more is loaded than one may have.

    Raises:
      OSError: it cannot be read.
      MalformedEncoding: it is too long.
    """
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise MalformedEncoding(f"a file of evidence has at most {MOST_BYTES} bytes")
    return data
