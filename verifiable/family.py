"""One function at several shapes of input, with one key.

A model is compiled for each length or batch size, and what a key holds of the parameters is mostly
the same for all. So a family has one key: `setup` makes it once, with every array that some member
needs, once each (`replay.key_layout`). Its header names the family, whose id binds the ids of all
members, and each member checks with its own arrays of the key.

    family = compile_family(model, params, (x_16,), (x_32,))     # both sides, once
    submission = family.prove(params, x)                         # device
    key = family.setup(params, challenge.secret())               # coordinator, once an epoch
    report = family.verify(key, x, submission, commitment=received)

The input decides which member runs; a submission of another one is rejected. Audits of a part go by
`family.audit_plan` and `family.audit` likewise.

A calibration names the programs that it holds for, and `calibrate` names one member. Name all:

    c = family.members[0].calibrate(params, samples).calibration
    c = dataclasses.replace(c, programs=tuple(m.id for m in family.members))
    family = family.with_policy(dataclasses.replace(policy, calibration=c))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax

from verifiable import policy as policies
from verifiable.challenge import Challenge
from verifiable.check.excerpts import restored
from verifiable.check.schedule import Strategy
from verifiable.check.setup import make_key
from verifiable.check.trees import abstract
from verifiable.encoding import tagged_hash
from verifiable.errors import require_type
from verifiable.key import VerifierKey
from verifiable.policy import Policy
from verifiable.program import Program, compile
from verifiable.report import Corridor, Report
from verifiable.report.formatting import shortlist
from verifiable.submission import Submission
from verifiable.trace import AuditOpening, AuditPlan, Commitment, Layout

_SHOWN = 8  # shapes in a message


@dataclass(frozen=True, eq=False, kw_only=True)
class Family:
    """Programs of one function at several shapes of input. Made by `compile_family`.

    Attributes:
      members: in the order in which their shapes were given.
      id: 32 bytes that name the family, whatever the order of its members.
    """

    members: tuple[Program, ...]
    id: bytes

    def __str__(self) -> str:
        """A line for each member."""
        lines = [f"{_shapes(m.inputs)}: program {m.id.hex()}" for m in self.members]
        return "\n".join([f"family {self.id.hex()}", *lines])

    def program(self, *inputs: Any) -> Program:
        """The member for inputs of these shapes and dtypes.

        Raises:
          TypeError: a leaf is not an array.
          ValueError: the family has no member for them.
        """
        wanted = abstract("inputs", inputs)
        for member in self.members:
            if _same(member.inputs, wanted):
                return member
        known = shortlist([_shapes(m.inputs) for m in self.members], _SHOWN, "; ")
        raise ValueError(
            f"the family was compiled for inputs {known}, not for {_shapes(wanted)}: pad "
            "them, or compile a family with their shapes"
        )

    def layout(self, *inputs: Any) -> Layout:
        """Where what is sent of a run on these inputs is, and how many bytes: `Program.layout`.

        Args:
          *inputs: the job's own inputs, or `ShapeDtypeStruct`s of them.

        Raises:
          TypeError: a leaf is not an array.
          ValueError: the family has no member for the inputs.
        """
        return self.program(*inputs).layout

    def with_policy(self, policy: Policy) -> Family:
        """The same family under another policy; errors as of `Program.with_policy`.

        Raises:
          ValueError: also if the policy was calibrated, and does not name every member.
        """
        return replace(self, members=tuple(m.with_policy(policy) for m in self.members))

    def prove(self, params: Any, *inputs: Any) -> Submission:
        """Run the member for these inputs on a device: `Program.prove`."""
        return self.program(*inputs).prove(params, *inputs)

    def setup(self, params: Any, challenge: Challenge) -> VerifierKey:
        """Make the key of all members; arguments and errors as of `Program.setup`."""
        return make_key(self.members, params, challenge, name=self.id)

    def member_key(self, key: VerifierKey, member: Program) -> VerifierKey:
        """The key of one member, for `Program.check` and the like; its arrays are not copied.

        Raises:
          TypeError: `key` is not a `VerifierKey`.
          ValueError: the key is not of this family, or the program no member of it.
        """
        require_type("key", key, VerifierKey)
        if all(m.id != member.id for m in self.members):
            raise ValueError(
                f"program {member.id.hex()} is no member of the family {self.id.hex()}"
            )
        key.header.require(program=self.id, policy=member.policy.id)
        held = restored(key.header, key.arrays, member.compiled_setup.layout.arrays)
        return VerifierKey(replace(key.header, program=member.id, excerpts=()), held)

    def verify(
        self,
        key: VerifierKey,
        *arguments: Any,
        commitment: Commitment,
        parameters: bytes | None = None,
        corridor: Corridor | None = None,
    ) -> Report:
        """Decide on a submission by the member for the inputs: `Program.verify`.

        Args:
          key: of the family, from `setup`.
          *arguments: the job's own inputs, then the `Submission`.
          commitment: as of `Program.verify`.
          parameters: likewise.
          corridor: likewise, of the member.

        Raises:
          TypeError: as `Program.verify`.
          ValueError: as `Program.verify`, or the family has no member for the inputs.
        """
        if not arguments:
            raise TypeError("the submission is missing: verify(key, *inputs, submission, ...)")
        require_type("key", key, VerifierKey)
        require_type("the last argument, the submission,", arguments[-1], Submission)
        member = self.program(*arguments[:-1])
        return member.verify(
            self.member_key(key, member),
            *arguments,
            commitment=commitment,
            parameters=parameters,
            corridor=corridor,
        )

    def audit_plan(
        self, seed: bytes, *inputs: Any, layers: int, rows: int | None = None
    ) -> AuditPlan:
        """Which layers and rows of a run on these inputs an audit looks at: `Program.audit_plan`.

        Args:
          seed: as of `Program.audit_plan`.
          *inputs: the job's own inputs, or `ShapeDtypeStruct`s of them.
          layers: as of `Program.audit_plan`.
          rows: likewise.

        Raises:
          TypeError: a leaf is not an array.
          ValueError: as `Program.audit_plan`, or the family has no member for the inputs.
        """
        return self.program(*inputs).audit_plan(seed, layers=layers, rows=rows)

    def audit(
        self,
        key: VerifierKey,
        *inputs: Any,
        plan: AuditPlan,
        commitment: Commitment,
        opening: AuditOpening | bytes | bytearray | memoryview,
        parameters: bytes | None = None,
    ) -> Report:
        """Decide on the opened part of a run by the member for the inputs: `Program.audit`.

        Args:
          key: of the family, from `setup`.
          *inputs: the job's own inputs.
          plan: from `audit_plan`.
          commitment: as of `Program.audit`.
          opening: likewise.
          parameters: likewise.

        Raises:
          TypeError: as `Program.audit`.
          ValueError: as `Program.audit`, or the family has no member for the inputs.
        """
        require_type("key", key, VerifierKey)
        member = self.program(*inputs)
        return member.audit(
            self.member_key(key, member),
            *inputs,
            plan=plan,
            commitment=commitment,
            opening=opening,
            parameters=parameters,
        )


def compile_family(
    fn: Callable[..., Any],
    params: Any,
    *shapes: tuple[Any, ...],
    policy: Policy = policies.DEFAULT,
    strategy: Strategy | None = None,
    self_test: bool = True,
    cuts: bool = False,
    row_block: int | None = None,
) -> Family:
    """Compile `fn(params, *inputs)` for several shapes of its inputs, with one key for all.

    Args:
      fn: as of `compile`.
      params: as of `compile`; the same for all members.
      *shapes: for each member the tuple of its inputs: pytrees of arrays or `ShapeDtypeStruct`s.
      policy: as of `compile`; the same for all members, so a calibration must name all of them.
      strategy: as of `compile`.
      self_test: as of `compile`.
      cuts: as of `compile`.
      row_block: as of `compile`.

    Raises:
      TypeError: as `compile`, or the inputs of a member are not a tuple.
      ValueError: as `compile`, no shapes are given, or two members have the same.
    """
    if not shapes:
        raise ValueError("a family needs the inputs of one member at least: (x,), (longer_x,), ...")
    for i, inputs in enumerate(shapes):
        if type(inputs) is not tuple:
            raise TypeError(
                f"the inputs of member {i} must be a tuple, such as (x,), got "
                f"{type(inputs).__name__}"
            )
    members: list[Program] = []
    for inputs in shapes:
        made = compile(
            fn,
            params,
            *inputs,
            policy=policy,
            strategy=strategy,
            self_test=self_test,
            cuts=cuts,
            row_block=row_block,
        )
        if any(_same(m.inputs, made.inputs) for m in members):
            raise ValueError(f"two members have the same inputs, {_shapes(made.inputs)}")
        members.append(made)
    ids = sorted(m.id for m in members)
    return Family(members=tuple(members), id=tagged_hash("family", *ids))


def _same(mine: Any, others: Any) -> bool:
    """Whether two trees have the same structure, shapes and dtypes."""
    return jax.tree.structure(mine) == jax.tree.structure(others) and all(
        (a.shape, a.dtype) == (b.shape, b.dtype)
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(others), strict=True)
    )


def _shapes(inputs: Any) -> str:
    """The types and shapes of inputs, such as `int32[2,16]`."""
    leaves = jax.tree.leaves(inputs)
    return "(" + ", ".join(f"{x.dtype.name}[{','.join(map(str, x.shape))}]" for x in leaves) + ")"
