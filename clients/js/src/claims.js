// Claims whose tests need no key: integer products, lookups, roundings, decisions
// (specs/freivalds.md, lookup.md, rounding.md, decision.md).

import { require, refuse } from './errors.js'
import { dot, reduced, residues } from './field.js'
import { DTYPES } from './tensors.js'

const TINY = 2 ** -126
const LARGEST = { int8: 128, uint8: 255 }

// C = A B over small integers, by Freivalds' test with one draw.
export function verifyProduct(seed, a, b, c, types, dtype) {
  const columns = b[0].length
  const shaped = c.length === a.length && c.every((row) => row.length === columns)
  require(shaped, 'claim-shape')
  require(dtype === 'int32', 'claim-dtype')
  const most = b.length * types.map((type) => LARGEST[type]).reduce((x, y) => x * y)
  require(c.flat().every((x) => Math.abs(x) <= most), 'claim-range')
  const g = residues(seed, `exact/parameters/${columns}`, columns)
  const projected = b.map((row) => dot(row, g))
  const right = c.every((row, i) => reduced(dot(row, g)) === reduced(dot(a[i], projected)))
  require(right, 'claim-mismatch')
}

// The words of a row, least significant first, with one value each for zero and NaN.
export function words(dtype, data) {
  const { size, float, read } = DTYPES[dtype]
  const view = new DataView(data.buffer, data.byteOffset, data.length)
  const least = { float32: TINY, bfloat16: TINY, float64: 2 ** -1022 }[dtype] ?? 0
  const found = []
  for (let at = 0; at < data.length; at += size) {
    let element = data.slice(at, at + size)
    if (float) {
      const [value] = read(view, at)
      if (Number.isNaN(value)) element = NAN[dtype]
      if (value === 0 || Math.abs(value) < least) element = new Uint8Array(size)
    }
    for (let i = 0; i < size; i += 2) found.push(element[i] | ((element[i + 1] ?? 0) << 8))
  }
  return found
}

const NAN = {
  float16: Uint8Array.of(0, 0x7e),
  bfloat16: Uint8Array.of(0xc0, 0x7f),
  float32: Uint8Array.of(0, 0, 0xc0, 0x7f),
  float64: Uint8Array.of(0, 0, 0, 0, 0, 0, 0xf8, 0x7f),
  float8_e4m3fn: Uint8Array.of(0x7f),
  float8_e5m2: Uint8Array.of(0x7e),
}

// Whether a gathered row is that of the table, by the fingerprints of both.
export function verifyRow(seed, dtype, row, claim) {
  const [mine, theirs] = [words(dtype, row), words(dtype, claim)]
  const g = residues(seed, `exact/lookup/${mine.length}`, mine.length)
  require(mine.length === theirs.length && dot(mine, g) === dot(theirs, g), 'lookup-mismatch')
}

// The slack of each element of a row; an infinity has only the least normal number.
function slacks(row, eps) {
  const finite = row.filter(Number.isFinite)
  const rms = Math.sqrt(finite.reduce((sum, x) => sum + x * x, 0) / Math.max(finite.length, 1))
  return row.map((x) => (Number.isFinite(x) ? eps * (Math.abs(x) + rms) + TINY : TINY))
}

function neighbours(value) {
  const view = new DataView(new ArrayBuffer(4))
  view.setFloat32(0, value)
  const bits = view.getUint32(0) >>> 16
  const at = (n) => {
    view.setUint32(0, n * 65536)
    return view.getFloat32(0)
  }
  if (bits === 0 || bits === 0x8000) return [at(0x8001), at(1)]
  return value > 0 ? [at(bits - 1), at(bits + 1)] : [at(bits + 1), at(bits - 1)]
}

// For each step, from the last to the first: the closed interval that it takes into [low, high].
const STEPS = {
  bfloat16: ([low, high]) => [(low + neighbours(low)[0]) / 2, (high + neighbours(high)[1]) / 2],
  round: ([low, high]) => [Math.ceil(low) - 0.5, Math.floor(high) + 0.5],
  floor: ([low, high]) => [Math.ceil(low), Math.floor(high) + 1],
  clamp: ([low, high]) => [low <= -127 ? -Infinity : low, high >= 127 ? Infinity : high],
  cast: ([low, high]) => [low <= -128 ? -Infinity : low, high >= 127 ? Infinity : high],
}
const CHAINS = { bfloat16: ['bfloat16'], floor: ['floor'], int8: ['round', 'clamp', 'cast'] }

// Largest finite bfloat16, and the middle from which on values round to infinity.
const BEYOND = 2 ** 127 * (2 - 2 ** -8)

function preimage(chain, claim) {
  if (chain === 'bfloat16' && !Number.isFinite(claim)) {
    return claim > 0 ? [BEYOND, Infinity] : [-Infinity, -BEYOND]
  }
  // A value that a clamp never returns has no preimage.
  if (chain === 'int8' && Math.abs(claim) > 127) return [Infinity, -Infinity]
  return [...CHAINS[chain]].reverse().reduce((interval, step) => STEPS[step](interval), [claim, claim])
}

// One row of values before a rounding, and what was committed of it.
export function verifyRounding(chain, eps, value, claim) {
  const finite = value.every(Number.isFinite)
  if (finite) require(!claim.some(Number.isNaN), 'claim-nonfinite')
  if (!finite) refuse('nonfinite-operand')
  const ratios = slacks(value, eps).map((slack, i) => {
    const [low, high] = preimage(chain, claim[i])
    return Math.max(0, low - value[i], value[i] - high) / slack
  })
  const whole = ratios.reduce((sum, r) => sum + r * r, 0)
  const passed = ratios.every((r) => r <= 1) && whole <= Math.max(1, ratios.length / 16)
  require(passed, 'rounding-mismatch')
}

const COMPARE = {
  lt: (a, b) => a < b,
  le: (a, b) => a <= b,
  gt: (a, b) => a > b,
  ge: (a, b) => a >= b,
  eq: (a, b) => a === b,
  ne: (a, b) => a !== b,
}

// One row of comparisons, committed as bits.
export function verifyComparison(kind, eps, a, b, claim) {
  const bit = (i) => ((claim[i >> 3] >> (i & 7)) & 1) === 1
  const sized = claim.length === Math.ceil(a.length / 8)
  require(sized, 'claim-shape')
  for (let i = a.length; i < 8 * claim.length; i++) require(!bit(i), 'claim-range')
  const [left, right] = [slacks(a, eps), slacks(b, eps)]
  const results = a.map((x, i) => {
    const y = b[i]
    const own = COMPARE[kind](x, y) === bit(i)
    if (own) return 'ok'
    if (Number.isNaN(x) || Number.isNaN(y)) return 'nonfinite-operand'
    const distance = Number.isFinite(x) && Number.isFinite(y) ? Math.abs(x - y) : Infinity
    return distance <= left[i] + right[i] ? 'ok' : 'decision-mismatch'
  })
  for (const reason of ['decision-mismatch', 'nonfinite-operand']) {
    require(!results.includes(reason), reason)
  }
}

// One row of signs, committed as codes.
export function verifySigns(eps, value, claim) {
  const allowed = slacks(value, eps)
  const results = value.map((v, i) => {
    const code = claim[i]
    if (Number.isNaN(v)) return code === 2 ? 'ok' : 'nonfinite-operand'
    if (code === 2) return 'claim-nonfinite'
    const own = Math.sign(v)
    if (code === own) return 'ok'
    return Math.abs(v) <= allowed[i] && (v === 0 || code === 0 || code === -own)
      ? 'ok'
      : 'decision-mismatch'
  })
  const coded = claim.every((code) => code >= -1 && code <= 2)
  require(!results.includes('claim-nonfinite'), 'claim-nonfinite')
  require(coded, 'claim-range')
  for (const reason of ['decision-mismatch', 'nonfinite-operand']) {
    require(!results.includes(reason), reason)
  }
}
