// Draws and challenges; integer products, lookups, roundings, decisions.

import * as claims from '../src/claims.js'
import { bytesToHex, hexToBytes } from '../src/bytes.js'
import { require } from '../src/errors.js'
import { challengeId, publicSeed, residues, secretSeed } from '../src/field.js'
import { draw, drawEach, select } from '../src/sampling.js'

const same = (claimed, computed) => require(String(claimed) === String(computed), 'wrong-value')
const large = (value) => BigInt(value.int ?? value)
const NAMED = { nan: NaN, inf: Infinity, '-inf': -Infinity, '-0.0': -0 }
const floats = (values) => values.map((value) => NAMED[value] ?? value)
const seedOf = ({ random }) => secretSeed(hexToBytes(random))

export const OPERATIONS = {
  'draws/draw': ({ seed, population, audits, label, drawn }) =>
    same(drawn, draw(hexToBytes(seed), population, audits, label)),
  'draws/each': ({ seed, rates, label, drawn }) => same(drawn, drawEach(hexToBytes(seed), rates, label)),
  'draws/select': ({ seed, weights, seats, label, chosen }) =>
    same(chosen, select(hexToBytes(seed), weights.map(large), seats, label)),
  'draws/secret': (given) => {
    const seed = seedOf(given)
    same(given.id, bytesToHex(challengeId(seed)))
    same(given.residues.map(large), residues(seed, given.label, given.count))
  },
  'draws/public': (given) => {
    const log = {
      root: hexToBytes(given.log_root),
      size: BigInt(given.log_size),
      chain: given.log_chain,
      closedAt: BigInt(given.closed_at),
    }
    const beacon = { ...given, round: BigInt(given.round), value: hexToBytes(given.value) }
    const [program, policy, parameters] = [given.program, given.policy, given.parameters].map(hexToBytes)
    same(given.id, bytesToHex(challengeId(publicSeed(log, beacon, { program, policy, parameters }))))
  },
  'exact/product': (given) => {
    const { a, b, c, types, dtype } = given
    claims.verifyProduct(seedOf(given), a, b, c, types, dtype)
  },
  'lookups/compare': (given) =>
    claims.verifyRow(seedOf(given), given.dtype, hexToBytes(given.row), hexToBytes(given.claim)),
  'roundings/rounding': ({ chain, eps, value, claim }) =>
    claims.verifyRounding(chain, eps, floats(value), floats(claim)),
  'decisions/comparison': ({ kind, eps, a, b, claim }) =>
    claims.verifyComparison(kind, eps, floats(a), floats(b), hexToBytes(claim)),
  'decisions/sign': ({ eps, value, claim }) => claims.verifySigns(eps, floats(value), claim),
}
