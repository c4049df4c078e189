"""Fuzzing of everything that reads what others sent: only a `VerificationError` may escape.

Atheris (libFuzzer) mutates bytes after the branches that they take. What comes of them must hold
laws too (`targets`): what was decoded encodes to the same bytes, and no run that was tampered with
is accepted by a whole check with another answer.

`python -m assurance.fuzz --help` has the options; `specs/assurance.md` the figures.
"""
