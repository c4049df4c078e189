// Ed25519 identities and their signatures (specs/messages.md, Identities and signatures).

import { ed25519 } from '@noble/curves/ed25519.js'
import { sha512 } from '@noble/hashes/sha2.js'
import { concatBytes, equal, fromLittleEndian, isBytes, utf8ToBytes } from './bytes.js'
import { taggedHash } from './encoding.js'
import { require } from './errors.js'

const REASON = 'malformed-encoding'
const { Point } = ed25519
const P = 2n ** 255n - 19n
const { n: ORDER } = Point.CURVE()

// A registered key: its point and its name. Refuses what is not the one encoding of a point of the
// curve, and points of small order.
export function identity(key) {
  require(isBytes(key, 32), REASON, 'a key has 32 bytes')
  const y = fromLittleEndian(key) & (2n ** 255n - 1n)
  require(y < P, REASON, 'a coordinate is below p')
  let point = null
  try {
    point = Point.fromBytes(key)
  } catch {
    // Refused below: the package says why in words of its own.
  }
  require(point !== null && !point.isSmallOrder(), REASON, 'a key is a point, of large order')
  return { key, point, id: taggedHash('worker identity', utf8ToBytes('ed25519'), key) }
}

// Whether a signature is valid without the cofactor: the point R must be s B - k A itself. (The
// package's own verification multiplies both by 8.)
export function verifies({ key, point }, signature, message) {
  if (!isBytes(signature, 64)) return false
  const [r, s] = [signature.subarray(0, 32), fromLittleEndian(signature.subarray(32))]
  if (s >= ORDER) return false
  const k = fromLittleEndian(sha512(concatBytes(r, key, message))) % ORDER
  const sB = s === 0n ? Point.ZERO : Point.BASE.multiplyUnsafe(s)
  return equal(sB.subtract(point.multiplyUnsafe(k)).toBytes(), r)
}
