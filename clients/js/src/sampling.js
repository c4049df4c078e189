// Draws from a public seed (specs/sampling.md, section 1).

import { blake3 } from '@noble/hashes/blake3.js'
import { concatBytes, fromLittleEndian, utf8ToBytes } from './bytes.js'

function stream(seed, kind, label) {
  const context = utf8ToBytes('verifiable v1 sampling')
  const hasher = blake3.create({ context })
  hasher.update(concatBytes(seed, utf8ToBytes(`${kind}/${label}`)))
  const read = (size) => (size ? fromLittleEndian(hasher.xof(size)) : 0n)
  const below = (bound) => {
    const bits = bound === 1n ? 0 : (bound - 1n).toString(2).length
    for (;;) {
      const value = read(Math.ceil(bits / 8)) & ((1n << BigInt(bits)) - 1n)
      if (value < bound) return value
    }
  }
  return { read, below }
}

export function draw(seed, population, audits, label) {
  const { below } = stream(seed, 'draw', label)
  const entries = Array.from({ length: population }, (_, i) => i)
  for (let place = 0; place < audits; place++) {
    const other = place + Number(below(BigInt(population - place)))
    ;[entries[place], entries[other]] = [entries[other], entries[place]]
  }
  return entries.slice(0, audits)
}

// ceil(rate 2^64), exactly: a double is an integer times a power of two.
function threshold(rate) {
  let [number, bits] = [rate, 0]
  while (!Number.isInteger(number)) [number, bits] = [number * 2, bits + 1]
  const scaled = BigInt(number) << 64n
  const unit = 1n << BigInt(bits)
  return (scaled + unit - 1n) / unit
}

export function drawEach(seed, rates, label) {
  const { read } = stream(seed, 'each', label)
  return rates.flatMap((rate, i) => (read(8) < threshold(rate) ? [i] : []))
}

export function select(seed, weights, seats, label) {
  const { below } = stream(seed, 'select', label)
  const chosen = []
  while (chosen.length < seats) {
    const left = weights.map((weight, i) => ({ weight, i })).filter(({ i }) => !chosen.includes(i))
    let point = below(left.reduce((sum, { weight }) => sum + weight, 0n))
    for (const { weight, i } of left) {
      if (point < weight) {
        chosen.push(i)
        break
      }
      point -= weight
    }
  }
  return chosen
}
