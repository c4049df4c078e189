// BLS signatures (specs/bls.md).

import { bls12_381 as bls } from '@noble/curves/bls12-381.js'
import { bytesToHex, concatBytes, equal, isBytes, utf8ToBytes } from './bytes.js'
import { require } from './errors.js'
import { framed } from './framing.js'

const POINT = 'invalid-point'
const G1 = bls.G1.Point
const G2 = bls.G2.Point
const DST = 'BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_'
const POP_DST = 'BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_'

function point(Group, size, data) {
  require(isBytes(data, size), POINT, `a point has ${size} bytes`)
  let found = null
  try {
    found = Group.fromBytes(data)
    found.assertValidity()
  } catch {
    // Refused below, as every other way of not being one.
  }
  const valid = found !== null && !found.is0() && found.isTorsionFree()
  require(valid && equal(found.toBytes(true), data), POINT, 'not the encoding of a point')
  return found
}

export const publicKey = (data) => point(G1, 48, data)
export const signature = (data) => point(G2, 96, data)

// A point of G1 as EIP-2537 has it: 128 bytes.
export function eip2537(key) {
  const affine = key.toBytes(false)
  const padding = new Uint8Array(16)
  return concatBytes(padding, affine.subarray(0, 48), padding, affine.subarray(48))
}

// Whether e(P, H(m)) = e(g, S).
function pairs(key, message, dst, point) {
  const hashed = bls.G2.hashToCurve(message, { DST: utf8ToBytes(dst) })
  const sides = [{ g1: key, g2: hashed }, { g1: G1.BASE.negate(), g2: point }]
  return bls.fields.Fp12.eql(bls.pairingBatch(sides), bls.fields.Fp12.ONE)
}

export function verify(key, message, domain, signed) {
  require(pairs(key, framed(message, domain), DST, signed), 'bad-signature')
}

export function verifyPossession(key, proof, binding, domain) {
  const message = domain.length
    ? framed(concatBytes(eip2537(key), binding), domain)
    : concatBytes(key.toBytes(true), binding)
  require(pairs(key, message, POP_DST, proof), 'bad-possession')
}

export function sum(keys) {
  const total = keys.reduce((a, b) => a.add(b), G1.ZERO)
  require(!total.is0(), 'infinite-aggregate')
  return total
}

// One signature of all keys on one message. Their proofs of possession must have been verified.
export function verifyAggregate(keys, message, domain, signed) {
  require(keys.length > 0, 'no-signers')
  const names = new Set(keys.map((key) => bytesToHex(key.toBytes(true))))
  require(names.size === keys.length, 'duplicate-signer')
  verify(sum(keys), message, domain, signed)
}
