// What this verifier says of a case: one function for each operation of each family. It takes the
// input of the case and returns its output, if it has one; what must fail throws a Refused.

import { blake3 } from '@noble/hashes/blake3.js'
import { bytesToHex, equal, hexToBytes } from '../src/bytes.js'
import { Float, decode, encode, taggedHash } from '../src/encoding.js'
import { require } from '../src/errors.js'
import { identity } from '../src/identities.js'
import * as merkle from '../src/merkle.js'
import { TRACE_RECEIPT, VERDICT, decodeMessage, receive } from '../src/messages.js'
import { floatBytes, gumbel } from '../src/noise.js'
import { verifyReceipt } from '../src/receipts.js'
import { DTYPES, elements } from '../src/tensors.js'
import * as traces from '../src/trace.js'
import { OPERATIONS as audit } from './audit.js'
import { OPERATIONS as claims } from './claims.js'
import { OPERATIONS as partial } from './partial.js'
import { OPERATIONS as settlement } from './settlement.js'

export const octets = (text) => (typeof text === 'string' ? hexToBytes(text) : text)
const list = (items) => (Array.isArray(items) ? items.map(octets) : items)

// An integer as a BigInt; what is none stays what it is.
export function integer(value) {
  if (Number.isInteger(value)) return BigInt(value)
  return value?.int === undefined ? value : BigInt(value.int)
}

export function requireValue(claimed, computed) {
  require(claimed === computed, 'wrong-value', `expected ${computed}, the case has ${claimed}`)
}

function shown(value) {
  if (typeof value === 'bigint') return { int: String(value) }
  if (value instanceof Float) {
    const view = new DataView(new ArrayBuffer(8))
    view.setFloat64(0, value.value)
    return { float: bytesToHex(new Uint8Array(view.buffer)) }
  }
  if (value instanceof Uint8Array) return { bytes: bytesToHex(value) }
  if (typeof value === 'string') return { text: value }
  if (Array.isArray(value)) return value.map(shown)
  if (value instanceof Map) return { map: [...value].map(([key, item]) => [key, shown(item)]) }
  return value
}

const formats = {
  'encoding/decode': ({ data, max_size: maxSize, max_items: maxItems }) => {
    const value = decode(octets(data), { maxSize, maxItems })
    require(equal(encode(value), octets(data)), 'wrong-value')
    return shown(value)
  },
  'encoding/tagged-hash': ({ tag, parts, digest }) =>
    requireValue(digest, bytesToHex(taggedHash(tag, ...parts.map(octets)))),
}

function proofs(verify) {
  return (input) => {
    const given = Object.fromEntries(Object.entries(input).map(([name, v]) => [name, integer(v)]))
    for (const name of ['leaf', 'root', 'old_root', 'subtree_root']) given[name] = octets(given[name])
    for (const name of ['proof', 'leaves']) given[name] = list(given[name])
    if (given.indices) given.indices = given.indices.map(integer)
    verify(merkle.SUITES[given.suite], given)
  }
}

const trees = {
  'trees/root': ({ suite, leaves, root }) => {
    const hashes = merkle.SUITES[suite]
    const computed = merkle.root(hashes, list(leaves).map(hashes.leaf))
    require(root === bytesToHex(computed), 'root-mismatch')
  },
  'trees/inclusion': proofs(merkle.verifyInclusion),
  'trees/consistency': proofs(merkle.verifyConsistency),
  'trees/subtree-inclusion': proofs(merkle.verifySubtreeInclusion),
  'trees/subtree-consistency': proofs(merkle.verifySubtreeConsistency),
  'multiproofs/multiproof': proofs(merkle.verifyMultiproof),
}

function floatBits(value) {
  if (Number.isNaN(value)) return 'nan'
  const view = new DataView(new ArrayBuffer(8))
  view.setFloat64(0, value)
  return bytesToHex(new Uint8Array(view.buffer))
}

function readTensor({ dtype, shape, data }) {
  const found = elements({ dtype, shape }, octets(data))
  return found.map(DTYPES[dtype].float ? floatBits : String)
}

function layoutOf({ layout, leaf_bytes: leafBytes = 1 << 16 }) {
  return { tensors: layout, leafBytes }
}

const commitmentOf = ({ root, size }) => ({ root: octets(root), size: integer(size) })
const placeOf = ({ tensor, start, stop }) => [tensor, start, stop]

const tensors = {
  'tensors/read': readTensor,
  'tensors/bytes': ({ dtype, shape, elements: claimed, data }) =>
    requireValue(String(claimed), String(readTensor({ dtype, shape, data }))),
  'commitments/commit': (given) => {
    const layout = layoutOf(given)
    const received = given.tensors.map((tensor) => ({ ...tensor, data: octets(tensor.data) }))
    const { digests } = traces.verifyTrace(layout, commitmentOf(given.commitment), received)
    return traces.leaves(layout).map((place, i) => [...placeOf(place), bytesToHex(digests[i])])
  },
  'commitments/decode': (given) =>
    traces.decodeTrace(layoutOf(given), octets(given.data)).map(bytesToHex),
  'openings/open': (given) => {
    const opening = { leaves: list(given.leaves), proof: list(given.proof) }
    const commitment = commitmentOf(given.commitment)
    return traces.verifyOpening(layoutOf(given), commitment, given.indices, opening).map(placeOf)
  },
  'noise/noise': ({ seed, position, vocabulary, digest }) => {
    const noise = gumbel(octets(seed), integer(position), vocabulary)
    requireValue(digest, bytesToHex(blake3(floatBytes(noise))))
  },
}

const plain = (value) => (value instanceof Uint8Array ? bytesToHex(value) : String(value))

const signed = {
  'receipts/identity': ({ key }) => bytesToHex(identity(octets(key)).id),
  'receipts/receive': ({ keys, seats, data }) => {
    const known = keys.map((key) => identity(octets(key))).map((who) => [bytesToHex(who.id), who])
    const found = receive(TRACE_RECEIPT, octets(data), new Map(known), seats && new Set(seats))
    return Object.fromEntries(Object.entries(found).map(([name, value]) => [name, plain(value)]))
  },
  'cose/verify': ({ record, issuer, data }) => {
    decodeMessage(VERDICT, octets(record))
    verifyReceipt(octets(data), octets(record), identity(octets(issuer)))
  },
}

export const OPERATIONS = { ...formats, ...trees, ...tensors, ...signed, ...settlement, ...claims, ...audit, ...partial }
