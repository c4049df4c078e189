// One whole audit in float32, given the key: y = max(x W1 + b1, 0) W2 + b2, with both products
// committed (specs/freivalds.md, sections 3 to 5; program.md, section 6; trace.md).
//
// Matrices are arrays of rows. The verifier has the biases and a key, and no weights.

import { require } from './errors.js'
import { verifyTrace } from './trace.js'

const TINY = 2 ** -126
const OUTPUT_EPS = 2 ** -12
const LARGEST = 2 ** 127 * (2 - 2 ** -23)

const norm = (row) => Math.sqrt(row.reduce((sum, x) => sum + x * x, 0))
const times = (row, matrix) =>
  matrix[0].map((_, j) => row.reduce((sum, x, k) => sum + x * matrix[k][j], 0))

// chi2.isf(p, t) for an even number t of degrees of freedom: the tail is
// exp(-x / 2) sum_(k < t / 2) (x / 2)^k / k!, which decreases in x.
export function upperQuantile(p, t) {
  if (t % 2 || t < 2) throw new RangeError('an even number of draws')
  const tail = (x) => {
    let [term, sum] = [1, 0]
    for (let k = 0; k < t / 2; k++) {
      sum += term
      term *= x / 2 / (k + 1)
    }
    return Math.exp(-x / 2) * sum
  }
  let [low, high] = [0, 2000]
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2
    if (tail(middle) > p) low = middle
    else high = middle
  }
  return (low + high) / 2
}

// Whether each row of C = A B is within its limit, by the projection of B on random vectors.
export function testProduct(a, c, { vectors, image, weights, norms, floor }, eps, limit) {
  const least = Math.min(...weights)
  const rows = a.map((row, i) => {
    const weighted = c[i].map((x, j) => x * weights[j])
    const energy = row.reduce((sum, x, k) => sum + (x * norms[k]) ** 2, 0)
    if (!c[i].every(Number.isFinite)) {
      const overflowed = Math.sqrt(row.length * energy) >= (LARGEST / 2) * least
      return overflowed ? 'nonfinite-operand' : 'claim-nonfinite'
    }
    const [theirs, mine] = [times(weighted, vectors), times(row, image)]
    const rho = norm(theirs.map((x, d) => x - mine[d]))
    const sigma = eps * Math.sqrt(energy + norm(weighted) ** 2) + floor
    return rho <= sigma * Math.sqrt(limit) ? 'ok' : 'claim-mismatch'
  })
  return rows
}

export function verifyNetwork({ rows, widths, x, b1, b2, key, eps, phi, draws }, commitment, sent) {
  const [, hidden, out] = widths
  const tensors = [hidden, out, out].map((n) => ({ dtype: 'float32', shape: [rows, n] }))
  const received = [...sent.claims, sent.y].map((data, i) => ({ ...tensors[i], data }))
  verifyTrace({ tensors, leafBytes: 1 << 16 }, commitment, received)
  const [c1, c2, y] = received.map(({ data }, i) => matrix(data, tensors[i].shape[1]))
  const limit = upperQuantile(phi / (2 * rows), draws)
  // What is replayed: additions of float32, rounded once, and the larger of two numbers.
  const added = (c, bias) => c.map((row) => row.map((value, j) => Math.fround(value + bias[j])))
  const between = added(c1, b1).map((row) => row.map((value) => (value > 0 ? value : value * 0)))
  const found = [testProduct(x, c1, key[0], eps, limit)]
  // A claim whose operands are not finite is not tested.
  const tested = between.every((row) => row.every(Number.isFinite))
  found.push(tested ? testProduct(between, c2, key[1], eps, limit) : ['nonfinite-operand'])
  for (const reason of ['claim-nonfinite', 'claim-mismatch', 'nonfinite-operand']) {
    require(!found.flat().includes(reason), reason)
  }
  const close = added(c2, b2).every((mine, i) => {
    const apart = norm(mine.map((value, j) => y[i][j] - value))
    return apart <= OUTPUT_EPS * norm(mine) + TINY
  })
  require(close, 'output-mismatch')
}

// Rows of little-endian floats of 32 bits, or of 64 (`wide`).
export function matrix(data, columns, wide = false) {
  const view = new DataView(data.buffer, data.byteOffset, data.length)
  const read = wide ? (at) => view.getFloat64(8 * at, true) : (at) => view.getFloat32(4 * at, true)
  const size = data.length / (wide ? 8 : 4)
  const flat = Array.from({ length: size }, (_, i) => read(i))
  return Array.from({ length: size / columns }, (_, i) => flat.slice(i * columns, (i + 1) * columns))
}
