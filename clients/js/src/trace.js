// Commitments to traces, and openings of them (specs/trace.md).
//
// A layout is {tensors: [{dtype, shape}], leafBytes}: values of the claims, then leaves of the answer.

import { concatBytes, equal, isBytes, startsWith, utf8ToBytes } from './bytes.js'
import { require } from './errors.js'
import { SUITES, root, verifyMultiproof } from './merkle.js'
import { DTYPES, count, requireTensor, size } from './tensors.js'

const REASON = 'malformed-encoding'
const { blake3 } = SUITES

export const MAGIC = concatBytes(utf8ToBytes('verifiable trace 1'), new Uint8Array(14))

// The leaves of a layout: {tensor, start, stop}, rows of a tensor.
export function leaves({ tensors, leafBytes }) {
  return tensors.flatMap(({ dtype, shape }, tensor) => {
    const columns = count(shape.slice(-1))
    const rows = count(shape.slice(0, -1))
    if (rows * columns === 0) return []
    const each = Math.max(1, Math.floor(leafBytes / (columns * DTYPES[dtype].size)))
    return Array.from({ length: Math.ceil(rows / each) }, (_, i) => ({
      tensor,
      start: i * each,
      stop: Math.min((i + 1) * each, rows),
    }))
  })
}

const rowOf = ({ dtype, shape }) => count(shape.slice(-1)) * DTYPES[dtype].size

function requireCommitment({ root: digest, size: leafCount }) {
  require(isBytes(digest, 32), REASON, 'a root has 32 bytes')
  const counts = typeof leafCount === 'bigint' && leafCount > 0n && leafCount < 1n << 64n
  require(counts, REASON, 'a size is an integer from 1')
}

// The commitment to tensors that have this layout, and the digests of its leaves.
export function commit(layout, data) {
  const digests = leaves(layout).map(({ tensor, start, stop }) => {
    const row = rowOf(layout.tensors[tensor])
    return blake3.leaf(data[tensor].subarray(start * row, stop * row))
  })
  return { root: root(blake3, digests), size: BigInt(digests.length), digests }
}

// Verify an answer and a trace that were received whole: tensors {dtype, shape, data}.
export function verifyTrace(layout, commitment, received) {
  requireCommitment(commitment)
  require(received.length === layout.tensors.length, REASON, 'another number of tensors')
  layout.tensors.forEach((tensor, i) => {
    const { dtype, shape, data } = received[i]
    const same = shape.length === tensor.shape.length && shape.every((n, d) => n === tensor.shape[d])
    require(dtype === tensor.dtype && same, REASON, 'another shape or type')
    requireTensor(tensor, data)
  })
  const found = commit(layout, received.map(({ data }) => data))
  const same = equal(found.root, commitment.root) && found.size === commitment.size
  require(same, 'commitment-mismatch')
  return found
}

// The canonical bytes of each tensor of an encoding.
export function decodeTrace(layout, data) {
  const sizes = layout.tensors.map(size)
  const whole = sizes.reduce((a, b) => a + b, MAGIC.length)
  require(data.length === whole, REASON, `an encoding has ${whole} bytes`)
  require(startsWith(data, MAGIC), REASON, 'another header')
  let at = MAGIC.length
  return layout.tensors.map((tensor, i) => {
    const piece = data.subarray(at, (at += sizes[i]))
    requireTensor(tensor, piece)
    return piece
  })
}

// Verify the leaves that were asked for, by their indices; returns which rows each has.
export function verifyOpening(layout, commitment, indices, { leaves: opened, proof }) {
  requireCommitment(commitment)
  const places = leaves(layout)
  require(commitment.size === BigInt(places.length), 'malformed-proof', 'another size')
  const counted = Array.isArray(opened) && opened.length === indices.length
  require(counted, 'malformed-proof', 'another number of leaves')
  const found = indices.map((index) => places[index])
  found.forEach(({ tensor, start, stop }, i) => {
    const { dtype, shape } = layout.tensors[tensor]
    require(isBytes(opened[i]), REASON, 'a leaf is bytes')
    requireTensor({ dtype, shape: [stop - start, count(shape.slice(-1))] }, opened[i])
  })
  verifyMultiproof(blake3, {
    proof,
    leaves: opened.map(blake3.leaf),
    indices: indices.map(BigInt),
    size: commitment.size,
    root: commitment.root,
  })
  return found
}
