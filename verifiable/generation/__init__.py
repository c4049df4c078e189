"""Text generation, verified: did this model write this text, token by token?

    noise        Gumbel noise from a job's seed, the same bits in every language
    sampler      temperature, top-k, top-p, min-p, repetition penalty; greedy
    transcript   a text as the answer of an ordinary program
    job          what is asked for, and the form of an answer
    texts        the model compiled for several lengths: jobs, programs and inputs
    audited      audits of some layers and positions; `some_positions`: their program
    generation   prove and verify
    decode       two ways to generate a text
    ties         which positions the results of a run belong to
    findings     the verdict on a text, and on each of its tokens; `judging` makes it of a report
    plain        jobs and samplers as plain values
    card         what a model is: program, parameters, tokenizer, template, defaults
    saved        an answer as bytes: a receipt, and a file that anyone with the model can judge
    opened       the same with the opening of an audit, which is much smaller

Specification: specs/generation.md.
"""

from __future__ import annotations

from verifiable.generation.audited import TextAuditPlan
from verifiable.generation.card import ModelCard
from verifiable.generation.decode import decode, generate
from verifiable.generation.findings import TEXT_REASONS, TextReport, TokenState
from verifiable.generation.generation import Generation, compile_generation
from verifiable.generation.job import GenerationJob
from verifiable.generation.opened import OpenedText, TextDraw, judge_opened
from verifiable.generation.sampler import Sampler
from verifiable.generation.saved import SavedText, TextReceipt, judge_saved, save
from verifiable.generation.transcript import Transcript, at_positions, transcript

__all__ = [
    "TEXT_REASONS",
    "Generation",
    "GenerationJob",
    "ModelCard",
    "OpenedText",
    "Sampler",
    "SavedText",
    "TextAuditPlan",
    "TextDraw",
    "TextReceipt",
    "TextReport",
    "TokenState",
    "Transcript",
    "at_positions",
    "compile_generation",
    "decode",
    "generate",
    "judge_opened",
    "judge_saved",
    "save",
    "transcript",
]
