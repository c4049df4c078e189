"""Two families of errors that never mix.

A `VerificationError` is the prover's fault: data that a device sent, or failed to send, does not
verify. It carries both sides as fields. A mistake of the caller is an ordinary `ValueError` or
`TypeError`. Bytes received from a device raise a `VerificationError` and nothing else. `Misnamed`
is both, because nobody can tell whose mistake it is. If the compiler errs, `Miscompiled` blames
neither. `SteerableChoice`, `UnlistedChoice`, `CoarseTolerance`, `NoInputs` and
`IndeterminateWarning` are warnings of `compile` to the program's author.

    VerificationError
    ├── MalformedEncoding      bytes that are too long, not canonical, or not of the format
    │   └── InvalidPoint       not a point of the group (`bls`)
    ├── SignatureError         signatures and sets of signers (`bls`)
    ├── UnknownWorker, NotSeated, InvalidSignature, NotOrdered, NotUploaded
    │                          messages (`protocols.messages`)
    ├── SettlementError        statements, committees, submissions, votes (`protocols.settlement`)
    ├── MerkleError
    │   ├── MalformedProof     a proof of the wrong length, order or range
    │   └── RootMismatch       a well-formed proof that leads to another root
    ├── Misnamed           about another program or other parameters; a `ValueError` too
    ├── CommitmentMismatch     a trace that differs from the one committed to
    └── VerdictError           raised by `Report.require`
        ├── Rejected           the answer was shown to be wrong
        └── Undecided          indeterminate: reschedule, never blame
"""

from __future__ import annotations

from typing import Any, TypeGuard, TypeVar

T = TypeVar("T")


def require_exact_type(argument: str, value: Any, kind: type[T]) -> T:
    """Return the value if it is of exactly this type; a subclass could skip the type's checks.

    Args:
      argument: name of the parameter, for the message.
      value: the caller's value.
      kind: the type whose constructor has made the checks.

    Raises:
      TypeError: the value is of another type, or of a subclass.
    """
    if type(value) is not kind:
        raise TypeError(f"{argument} must be {_named(kind)}, got {type(value).__name__}")
    return value


def is_bytes32(value: Any) -> TypeGuard[bytes]:
    """Whether a value is 32 bytes, such as a digest, an id or a seed."""
    return type(value) is bytes and len(value) == 32


def require_bytes32(
    argument: str, value: Any, error: type[VerificationError] | None = None
) -> bytes:
    """Return the value if it is 32 bytes, such as a digest, an id or a seed.

    Args:
      argument: name of the parameter or field, for the message.
      value: the caller's value, or one that was received.
      error: raised for anything else that was received.

    Raises:
      TypeError: the caller's value is of another type.
      ValueError: it has another length.
    """
    if is_bytes32(value):
        return value
    length = f"{len(value)} bytes" if type(value) is bytes else None
    mistake = TypeError if length is None else ValueError
    found = length or type(value).__name__
    raise (error or mistake)(f"{argument} must be 32 bytes, got {found}")


class Structured(Exception):
    """Base of errors with attributes, whatever their constructor takes: they can be pickled.

    A pool of processes sends an error of a worker to its parent. By itself Python would call the
    constructor with the message, and the pool would break.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """The class, the message and the attributes."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[Structured], args: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class SteerableChoice(UserWarning):
    """A program chooses from a claim whose tolerance decides most of the choices."""


class UnlistedChoice(UserWarning):
    """A program chooses from claims in a way that near-ties do not follow: no report lists them."""


class NoInputs(UserWarning):
    """A program has no inputs and no claims: what was meant as input may be its parameters."""


class CoarseTolerance(UserWarning):
    """A product has a tolerance within which weights of fewer bits pass."""


class Miscompiled(Structured, RuntimeError):
    """The compiled check computes something else than its own equations: nobody can be judged.

    Attributes:
      equation: name of the first equation that differs.
      compiled: its value, or one element of it, in the compiled check.
      op_by_op: the same evaluated op by op.
    """

    def __init__(self, *, equation: str, compiled: Any, op_by_op: Any):
        """Keep both sides."""
        self.equation, self.compiled, self.op_by_op = equation, compiled, op_by_op
        super().__init__(
            f"the compiled check computes {compiled} in {equation}, but op by op it is {op_by_op}: "
            "XLA miscompiles this program, which blames no device. Use another version of jax, or "
            "write the equation in another way; compile(..., self_test=False) skips this test"
        )


class IndeterminateWarning(UserWarning):
    """Outputs, or much of a program, are behind discontinuities, where no cheat is rejected."""


class VerificationError(Structured):
    """What a device sent does not verify. Only `Rejected` and malformed data show a fault."""


class MalformedEncoding(VerificationError):
    """Bytes that are too long, not canonical, or not of the expected format."""


class MerkleError(VerificationError):
    """A Merkle proof that does not verify."""


class MalformedProof(MerkleError):
    """A proof of the wrong length, order or range; no root was computed."""


class RootMismatch(MerkleError):
    """A well-formed proof that leads to another root.

    Attributes:
      expected: the root that was committed to, 32 bytes.
      computed: the root that the proof leads to, 32 bytes.
      index: position of the leaf, or None if the proof covers several.
    """

    def __init__(self, *, expected: bytes, computed: bytes, index: int | None = None):
        """Keep both sides."""
        self.expected, self.computed, self.index = expected, computed, index
        where = "" if index is None else f" at leaf {index}"
        super().__init__(
            f"proof{where} leads to root {computed.hex()}, but {expected.hex()} was committed: "
            "(a) the data or its position differs from what was committed, or "
            "(b) the proof belongs to another tree"
        )


class Misnamed(VerificationError, ValueError):
    """What was received names another program or other parameters than the caller's own.

    The sender may have changed the name, or the caller may judge with the wrong program, so it
    shows no fault of either.

    Attributes:
      name: "program" or "parameters".
      expected: id of the caller's own program, or root of its parameters, 32 bytes.
      found: what was received in its place.
    """

    def __init__(self, message: str, *, name: str, expected: bytes, found: bytes):
        """Keep both sides."""
        self.name, self.expected, self.found = name, expected, found
        super().__init__(message)


class CommitmentMismatch(VerificationError):
    """A trace that differs from the one committed to.

    Attributes:
      expected: root and number of leaves that were committed to.
      computed: root and number of leaves of the trace received.
    """

    def __init__(self, *, expected: tuple[bytes, int], computed: tuple[bytes, int]):
        """Keep both sides."""
        self.expected, self.computed = expected, computed
        super().__init__(
            f"trace has root {computed[0].hex()} over {computed[1]} leaves, but root "
            f"{expected[0].hex()} over {expected[1]} leaves was committed"
        )


class VerdictError(VerificationError):
    """Base of the errors that `Report.require` raises.

    Attributes:
      reason: the stable reason code of the report.
    """

    def __init__(self, reason: str, message: str):
        """Keep the reason code."""
        self.reason = reason
        super().__init__(f"{reason}: {message}")


class Rejected(VerdictError):
    """The answer was shown to be wrong."""


class Undecided(VerdictError):
    """The answer was shown neither right nor wrong: reschedule, never blame."""


def require_type(argument: str, value: object, kind: type | tuple[type, ...]) -> None:
    """Require a value of one of some types; a subclass will do.

    Args:
      argument: name of the parameter, as the caller writes it.
      value: what was given for it.
      kind: the type, or several.

    Raises:
      TypeError: the value is of another type; the message names the argument.
    """
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(map(_named, kinds))
        raise TypeError(f"{argument} must be {names}, got {type(value).__name__}")


def received_bytes(data: bytes | bytearray | memoryview, *, most: int | None = None) -> bytes:
    """What a decoder was given, as bytes that nothing can change any more.

    Args:
      data: what was received.
      most: the most bytes that a message may have; of longer data, one byte more is returned.

    Raises:
      TypeError: `data` is of another type, or not contiguous.
    """
    if type(data) is bytes and (most is None or len(data) <= most):
        return data
    if not isinstance(data, bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"data must be bytes, a bytearray or a memoryview, got {type(data).__name__}"
        )
    return bytes(memoryview(data).cast("B")[: None if most is None else most + 1])


def _named(kind: type) -> str:
    """A type with its article."""
    name = kind.__name__
    if kind is bytes:
        return name
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
