// Integers modulo p = 2^61 - 1, and challenges (specs/freivalds.md, sections 2 and 6).

import { blake3 } from '@noble/hashes/blake3.js'
import { concatBytes, fromLittleEndian, utf8ToBytes } from './bytes.js'
import { encode, taggedHash } from './encoding.js'
import { require } from './errors.js'

export const P = (1n << 61n) - 1n

export const secretSeed = (random) => taggedHash('secret challenge', random)
export const challengeId = (seed) => taggedHash('challenge id', seed)

// The seed that everybody derives from a closed log and a later value of its beacon.
export function publicSeed(log, beacon, { program, policy, parameters }) {
  const later = beacon.chain === log.chain && beacon.round > log.closedAt
  require(later, 'known-beacon', 'the beacon is not a later value of the one that the log named')
  const place = encode([log.size, beacon.chain, beacon.round])
  return taggedHash('public challenge', program, policy, parameters, log.root, place, beacon.value)
}

export function residues(seed, name, count) {
  const material = concatBytes(seed, utf8ToBytes(`residue/${name}`))
  const context = utf8ToBytes('verifiable v1 draws')
  const data = blake3(material, { context, dkLen: 16 * count })
  return Array.from({ length: count }, (_, i) => {
    const word = (at) => fromLittleEndian(data.subarray(16 * i + at, 16 * i + at + 8))
    return ((word(0) << 64n) + word(8)) % P
  })
}

export const dot = (a, b) => a.reduce((sum, x, i) => (sum + BigInt(x) * b[i]) % P, 0n)
export const reduced = (x) => ((x % P) + P) % P
