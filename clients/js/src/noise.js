// The noise of a sampler (specs/generation.md, section 1).

import { blake3 } from '@noble/hashes/blake3.js'
import { bytesToHex, concatBytes, littleEndian, utf8ToBytes } from './bytes.js'

const LEVELS = 1 << 16
const CONTEXT = utf8ToBytes('verifiable v1 generation noise')
const DIGEST = '94425da06f3c45c0f406c0c7c0e81c648799dd42d5fad870fe218b126034b69b'

export function floatBytes(values) {
  const view = new DataView(new ArrayBuffer(4 * values.length))
  values.forEach((value, i) => view.setFloat32(4 * i, value, true))
  return new Uint8Array(view.buffer)
}

function table(value) {
  return Float32Array.from({ length: LEVELS }, (_, d) => value((d + 0.5) / LEVELS))
}

let made
function tables() {
  if (made) return made
  const low = (scale) => table((q) => -Math.log(-Math.log(q * scale)))
  const high = (scale) => table((q) => -Math.log(-Math.log1p(-q * scale)))
  const found = {
    middle: low(1),
    low: [low(2 ** -8), low(2 ** -16)],
    high: [high(2 ** -8), high(2 ** -16)],
  }
  const all = [found.middle, ...found.low, ...found.high].map(floatBytes)
  if (bytesToHex(blake3(concatBytes(...all))) !== DIGEST) {
    throw new Error('this logarithm makes other tables than the specification has')
  }
  return (made = found)
}

// The noise of one position, a Float32Array of the length of the vocabulary.
export function gumbel(seed, position, vocabulary) {
  const { middle, low, high } = tables()
  const material = concatBytes(seed, littleEndian(position, 8))
  const stream = blake3.create({ context: CONTEXT }).update(material)
  const digits = (count) => {
    const data = stream.xof(2 * count)
    return Array.from({ length: count }, (_, i) => data[2 * i] | (data[2 * i + 1] << 8))
  }
  const noise = new Float32Array(vocabulary)
  let tails = []
  digits(vocabulary).forEach((d, token) => {
    noise[token] = middle[d]
    if (d < 256) tails.push({ token, tables: low })
    if (d >= LEVELS - 256) tails.push({ token, tables: high })
  })
  for (const level of [0, 1]) {
    const further = digits(tails.length)
    tails.forEach(({ token, tables: [...both] }, i) => (noise[token] = both[level][further[i]]))
    tails = tails.filter((_, i) => further[i] < 256)
  }
  return noise
}
