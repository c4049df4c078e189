"""Models of signals and series: recurrent, state-space and convolutional networks, and decoding."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax import Array, lax

from benchmarks.zoo import layers as nn
from benchmarks.zoo.subject import Inputs, Subject, Weights, integers, normals

BATCH, STEPS, WIDTH, HIDDEN = 4, 16, 64, 96
SERIES = normals(BATCH, STEPS, WIDTH)


def lstm() -> Subject:
    """A language model with two LSTM layers, step by step under scan."""
    w = Weights(41)

    params = {
        "words": w.normal(128, WIDTH),
        "layers": [w.dense(i + HIDDEN, 4 * HIDDEN) for i in (WIDTH, HIDDEN)],
        "head": w.dense(HIDDEN, 128),
    }

    def step(p: Any, state: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], Array]:
        h, c = state
        gates = nn.dense(p, jnp.concatenate([x, h], -1))
        i, f, g, o = jnp.split(gates, 4, -1)
        c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def fn(p: Any, ids: Array) -> Array:
        x = jnp.swapaxes(p["words"][ids], 0, 1)
        for layer in p["layers"]:
            zero = jnp.zeros((BATCH, HIDDEN))
            _, x = lax.scan(lambda s, y, p=layer: step(p, s, y), (zero, zero), x)
        return nn.dense(p["head"], x)

    return Subject(fn=fn, params=params, draw=integers(128, BATCH, STEPS))


def _gru_weights(w: Weights) -> dict[str, Any]:
    return {
        "input": w.dense(WIDTH, 3 * HIDDEN),
        "hidden": w.dense(HIDDEN, 3 * HIDDEN),
    }


def _gru(p: Any, x: Array, *, reverse: bool = False) -> Array:
    """States over time of (steps, batch, width)."""
    inputs = nn.dense(p["input"], x)

    def step(h: Array, given: Array) -> tuple[Array, Array]:
        r, z, n = jnp.split(given, 3, -1)
        hr, hz, hn = jnp.split(nn.dense(p["hidden"], h), 3, -1)
        update = jax.nn.sigmoid(z + hz)
        new = jnp.tanh(n + jax.nn.sigmoid(r + hr) * hn)
        h = update * h + (1 - update) * new
        return h, h

    return lax.scan(step, jnp.zeros((x.shape[1], HIDDEN)), inputs, reverse=reverse)[1]


def gru() -> Subject:
    """A GRU whose last state is classified."""
    w = Weights(42)
    params = {"layers": _gru_weights(w), "head": w.dense(HIDDEN, 64)}

    def fn(p: Any, x: Array) -> Array:
        return nn.dense(p["head"], _gru(p["layers"], jnp.swapaxes(x, 0, 1))[-1])

    return Subject(fn=fn, params=params, draw=SERIES)


def bidirectional() -> Subject:
    """GRUs in both directions, pooled by attention."""
    w = Weights(43)
    params = {
        "layers": [_gru_weights(w), _gru_weights(w)],
        "score": w.dense(2 * HIDDEN, 1),
        "head": w.dense(2 * HIDDEN, 64),
    }

    def fn(p: Any, x: Array) -> Array:
        x = jnp.swapaxes(x, 0, 1)
        both = [_gru(layer, x, reverse=bool(i)) for i, layer in enumerate(p["layers"])]
        h = jnp.concatenate(both, -1)
        share = jax.nn.softmax(nn.dense(p["score"], jnp.tanh(h)), 0)
        return nn.dense(p["head"], jnp.sum(share * h, 0))

    return Subject(fn=fn, params=params, draw=SERIES)


class _ConvLstm(linen.Module):
    """Flax's own cell over frames."""

    @linen.compact
    def __call__(self, x: Array) -> Array:
        y = linen.RNN(linen.ConvLSTMCell(16, (3, 3)))(x)
        return linen.Conv(3, (3, 3))(y[:, -1])


class _FlaxLstm(linen.Module):
    """Flax's own cell, a layer norm and a head."""

    @linen.compact
    def __call__(self, x: Array) -> Array:
        y = linen.RNN(linen.OptimizedLSTMCell(HIDDEN))(x)
        return linen.Dense(64)(linen.LayerNorm()(y[:, -1]))


def _linen(module: linen.Module, draw: Any, seed: int) -> Subject:
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *draw(rng))

    def filled(x: Any) -> Array:
        if len(x.shape) < 2:
            return jnp.asarray(0.1 * rng.standard_normal(x.shape), x.dtype)
        fan = np.sqrt(np.prod(x.shape[:-1]))
        return jnp.asarray(rng.standard_normal(x.shape) / fan, x.dtype)

    return Subject(fn=module.apply, params=jax.tree.map(filled, shapes), draw=draw)


def conv_lstm() -> Subject:
    """The next frame of a film, by convolutional gates."""
    return _linen(_ConvLstm(), normals(1, 4, 8, 8, 3), 44)


def flax_lstm() -> Subject:
    """An LSTM as Flax builds it."""
    return _linen(_FlaxLstm(), SERIES, 45)


def s4d() -> Subject:
    """A diagonal state-space model, as a convolution by complex Fourier transforms."""
    w, states = Weights(46), 8
    params = {
        "decay": w.vector(WIDTH, states, around=-0.7),
        "turn": w.normal(WIDTH, states),
        "out": w.normal(WIDTH, states),
        "skip": w.vector(WIDTH, around=1.0),
        "layers": nn.mlp_weights(w, WIDTH, 2 * WIDTH),
    }

    def fn(p: Any, x: Array) -> Array:
        rate = -jnp.exp(p["decay"]) + 1j * p["turn"]
        powers = jnp.exp(rate[..., None] * jnp.arange(STEPS))
        kernel = 2 * jnp.real(jnp.einsum("ds,dst->td", p["out"] / rate, powers))
        spectrum = jnp.fft.rfft(x, 2 * STEPS, axis=1) * jnp.fft.rfft(kernel, 2 * STEPS, axis=0)
        y = jnp.fft.irfft(spectrum, 2 * STEPS, axis=1)[:, :STEPS] + x * p["skip"]
        return x + nn.mlp(p["layers"], jax.nn.gelu(y))

    return Subject(fn=fn, params=params, draw=SERIES)


def mamba() -> Subject:
    """A selective state-space model, by an associative scan."""
    w, states = Weights(47), 8
    params = {
        "layers": w.dense(WIDTH, 2 * WIDTH),
        "select": w.dense(WIDTH, 2 * states),
        "step": w.dense(WIDTH, WIDTH),
        "rate": w.normal(WIDTH, states),
        "out": w.dense(WIDTH, WIDTH),
    }

    def join(a: Any, b: Any) -> Any:
        return a[0] * b[0], b[0] * a[1] + b[1]

    def fn(p: Any, x: Array) -> Array:
        h, gate = jnp.split(nn.dense(p["layers"], x), 2, -1)
        h = jax.nn.silu(h)
        into, out = jnp.split(nn.dense(p["select"], h), 2, -1)
        dt = jax.nn.softplus(nn.dense(p["step"], h))
        decay = jnp.exp(-dt[..., None] * jnp.exp(p["rate"]))
        drive = (dt * h)[..., None] * into[..., None, :]
        _, state = lax.associative_scan(join, (decay, drive), axis=1)
        y = jnp.sum(state * out[..., None, :], -1) * jax.nn.silu(gate)
        return x + nn.dense(p["out"], y)

    return Subject(fn=fn, params=params, draw=SERIES)


def rwkv() -> Subject:
    """Weighted running averages with a running maximum, step by step."""
    w = Weights(48)
    params = {
        "layers": {name: w.matrix(WIDTH, WIDTH) for name in ("r", "k", "v", "o")},
        "decay": w.vector(WIDTH, around=-0.5),
        "first": w.vector(WIDTH, around=0.3),
    }

    def fn(p: Any, x: Array) -> Array:
        r, k, v = (jnp.swapaxes(x @ p["layers"][name], 0, 1) for name in ("r", "k", "v"))

        def step(state: Any, given: Any) -> Any:
            above, below, top = state
            key, value = given
            largest = jnp.maximum(top, p["first"] + key)
            old, new = jnp.exp(top - largest), jnp.exp(p["first"] + key - largest)
            y = (old * above + new * value) / (old * below + new)
            slower = top - jnp.exp(p["decay"])
            largest = jnp.maximum(slower, key)
            old, new = jnp.exp(slower - largest), jnp.exp(key - largest)
            return (old * above + new * value, old * below + new, largest), y

        zero = jnp.zeros((BATCH, WIDTH))
        _, y = lax.scan(step, (zero, zero, zero - 1e30), (k, v))
        return x + jnp.swapaxes(jax.nn.sigmoid(r) * y, 0, 1) @ p["layers"]["o"]

    return Subject(fn=fn, params=params, draw=SERIES)


def wavenet() -> Subject:
    """Dilated causal convolutions with gates; classes of 256 levels."""
    w = Weights(49)
    params = {
        "stem": w.kernel(2, 1, WIDTH),
        "layers": [
            {"gates": w.kernel(2, WIDTH, 2 * WIDTH), "out": w.dense(WIDTH, WIDTH)} for _ in range(3)
        ],
        "head": w.dense(WIDTH, 256),
    }

    def fn(p: Any, x: Array) -> Array:
        x, total = nn.conv(x, p["stem"], padding=[(1, 0)]), 0.0
        for i, layer in enumerate(p["layers"]):
            y = nn.conv(x, layer["gates"], padding=[(2**i, 0)], dilation=2**i)
            a, b = jnp.split(y, 2, -1)
            y = nn.dense(layer["out"], jnp.tanh(a) * jax.nn.sigmoid(b))
            x, total = x + y, total + y
        return nn.dense(p["head"], jax.nn.relu(total))

    return Subject(fn=fn, params=params, draw=normals(2, 32, 1))


def conformer() -> Subject:
    """Attention and depthwise convolutions with gated linear units, half MLPs around them."""
    w = Weights(50)
    params = {
        "layers": nn.block_weights(w, WIDTH),
        "half": nn.mlp_weights(w, WIDTH, 2 * WIDTH),
        "norm": w.norm(WIDTH),
        "gates": w.dense(WIDTH, 2 * WIDTH),
        "depth": w.kernel(5, 1, WIDTH),
        "out": w.dense(WIDTH, WIDTH),
    }

    def fn(p: Any, x: Array) -> Array:
        x = x + 0.5 * nn.mlp(p["half"], x, jax.nn.silu)
        x = x + nn.attention(p["layers"]["attention"], nn.layer_norm(p["layers"]["first"], x), 4)
        h = jax.nn.glu(nn.dense(p["gates"], nn.layer_norm(p["norm"], x)))
        h = jax.nn.silu(nn.conv(h, p["depth"], groups=WIDTH))
        x = x + nn.dense(p["out"], h)
        return x + 0.5 * nn.mlp(p["layers"]["mlp"], nn.layer_norm(p["layers"]["second"], x))

    return Subject(fn=fn, params=params, draw=SERIES)


def ctc() -> Subject:
    """A recogniser, and the log probability of a given text by the forward recursion."""
    w, letters = Weights(51), 8
    params = {"layers": _gru_weights(w), "head": w.dense(HIDDEN, 64)}

    def fn(p: Any, x: Array, text: Array) -> Array:
        logits = nn.dense(p["head"], _gru(p["layers"], jnp.swapaxes(x, 0, 1)))
        scores = jax.nn.log_softmax(logits, -1)
        labels = jnp.zeros((BATCH, 2 * letters + 1), jnp.int32).at[:, 1::2].set(text)
        again = labels == jnp.roll(labels, 2, 1)
        start = jnp.full(labels.shape, nn.MASKED).at[:, :2].set(0.0)

        def step(before: Array, frame: Array) -> tuple[Array, None]:
            one, two = (
                jnp.pad(before, ((0, 0), (i, 0)), constant_values=nn.MASKED)[:, : before.shape[1]]
                for i in (1, 2)
            )
            two = jnp.where(again, nn.MASKED, two)
            sums = jnp.logaddexp(jnp.logaddexp(before, one), two)
            return sums + jnp.take_along_axis(frame, labels, 1), None

        last, _ = lax.scan(step, start, scores)
        return jnp.logaddexp(last[:, -1], last[:, -2])

    def draw(rng: np.random.Generator) -> Inputs:
        return *SERIES(rng), jnp.asarray(rng.integers(1, 64, (BATCH, letters)), jnp.int32)

    return Subject(fn=fn, params=params, draw=draw)


def viterbi() -> Subject:
    """Best sequence of labels under a chain of transitions, traced back by a reversed scan."""
    w, labels = Weights(52), 64
    params = {"layers": _gru_weights(w), "head": w.dense(HIDDEN, labels), "next": w.normal(64, 64)}

    def fn(p: Any, x: Array) -> tuple[Array, Array]:
        emissions = nn.dense(p["head"], _gru(p["layers"], jnp.swapaxes(x, 0, 1)))

        def forward(score: Array, frame: Array) -> tuple[Array, Array]:
            paths = score[:, :, None] + p["next"]
            return jnp.max(paths, 1) + frame, jnp.argmax(paths, 1)

        final, back = lax.scan(forward, emissions[0], emissions[1:])
        last = jnp.argmax(final, -1)

        def trace(label: Array, pointers: Array) -> tuple[Array, Array]:
            before = jnp.take_along_axis(pointers, label[:, None], 1)[:, 0]
            return before, before

        _, labels_before = lax.scan(trace, last, back, reverse=True)
        return jnp.concatenate([labels_before, last[None]]), jnp.max(final, -1)

    return Subject(fn=fn, params=params, draw=SERIES)


def neural_ode() -> Subject:
    """A field integrated by four steps of Runge and Kutta."""
    w = Weights(53)
    params = {"layers": nn.mlp_weights(w, WIDTH, 128), "head": w.dense(WIDTH, 64)}

    def fn(p: Any, x: Array) -> Array:
        def field(y: Array) -> Array:
            return nn.mlp(p["layers"], y, jnp.tanh)

        def step(y: Array, _: None) -> tuple[Array, None]:
            h = 0.25
            a = field(y)
            b = field(y + h / 2 * a)
            c = field(y + h / 2 * b)
            d = field(y + h * c)
            return y + h / 6 * (a + 2 * b + 2 * c + d), None

        return nn.dense(p["head"], lax.scan(step, x, None, length=4)[0])

    return Subject(fn=fn, params=params, draw=normals(16, WIDTH))


MODELS = (
    lstm,
    gru,
    bidirectional,
    conv_lstm,
    flax_lstm,
    s4d,
    mamba,
    rwkv,
    wavenet,
    conformer,
    ctc,
    viterbi,
    neural_ode,
)
