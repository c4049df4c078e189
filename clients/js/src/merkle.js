// Trees and their proofs (specs/merkle.md). Positions and sizes are BigInts below 2^64.

import { blake3 } from '@noble/hashes/blake3.js'
import { sha256 } from '@noble/hashes/sha2.js'
import { concatBytes, equal, isBytes } from './bytes.js'
import { taggedHash } from './encoding.js'
import { require } from './errors.js'

const SHAPE = 'malformed-proof'
const LEAF = taggedHash('merkle leaf')
const NODE = taggedHash('merkle node')

export const SUITES = {
  sha256: {
    empty: sha256(new Uint8Array()),
    leaf: (data) => sha256(concatBytes(Uint8Array.of(0), data)),
    node: (left, right) => sha256(concatBytes(Uint8Array.of(1), left, right)),
  },
  blake3: {
    empty: taggedHash('merkle empty'),
    leaf: (data) => blake3(data, { key: LEAF }),
    node: (left, right) => blake3(concatBytes(left, right), { key: NODE }),
  },
}

const width = (n) => (n === 1n ? 0n : BigInt((n - 1n).toString(2).length))
// The largest power of two below n, for n > 1.
const split = (n) => 1n << (width(n) - 1n)

export function root(suite, digests) {
  if (digests.length === 0) return suite.empty
  if (digests.length === 1) return digests[0]
  const k = Number(split(BigInt(digests.length)))
  return suite.node(root(suite, digests.slice(0, k)), root(suite, digests.slice(k)))
}

const isCount = (n) => typeof n === 'bigint' && n >= 0n && n < 1n << 64n

function requireDigests(list, length) {
  require(Array.isArray(list) && list.length === length, SHAPE, `a proof has ${length} digests`)
  require(list.every((digest) => isBytes(digest, 32)), SHAPE, 'a digest has 32 bytes')
}

function requireRoot(expected, computed) {
  require(equal(expected, computed), 'root-mismatch', 'the proof leads to another root')
}

// The steps of PATH: for each digest, from the leaf upwards, whether it stands to the left.
function inclusionSides(index, size) {
  if (size === 1n) return []
  const k = split(size)
  if (index < k) return [...inclusionSides(index, k), false]
  return [...inclusionSides(index - k, size - k), true]
}

export function verifyInclusion(suite, { proof, leaf, index, size, root: expected }) {
  require(isCount(size) && isCount(index) && index < size, SHAPE, 'no such leaf')
  require(isBytes(leaf, 32), SHAPE, 'the digest of a leaf has 32 bytes')
  const sides = inclusionSides(index, size)
  requireDigests(proof, sides.length)
  const step = (node, digest, i) => (sides[i] ? suite.node(digest, node) : suite.node(node, digest))
  requireRoot(expected, proof.reduce(step, leaf))
}

function requireSubtree(start, end, size) {
  require([start, end, size].every(isCount) && start <= end && end <= size, SHAPE, 'no such range')
  const whole = start === end || start % (1n << width(end - start)) === 0n
  require(whole, SHAPE, 'the range is not a subtree')
}

export function verifySubtreeInclusion(suite, { proof, leaf, index, start, end, root: expected }) {
  requireSubtree(start, end, (1n << 64n) - 1n)
  require(typeof index === 'bigint', SHAPE, 'an index is an integer')
  verifyInclusion(suite, { proof, leaf, index: index - start, size: end - start, root: expected })
}

// How the digests of SUBTREE_PROOF combine. Each step is the place of its digest: 'seed' stands for
// both roots, 'right' of the tree only, 'left' of the tree only, 'shared' to the left of both.
function consistencySteps(start, end, size, known) {
  if (start === 0n && end === size) return known ? [] : ['seed']
  const k = split(size)
  if (end <= k) return [...consistencySteps(start, end, k, known), 'right']
  if (start >= k) return [...consistencySteps(start - k, end - k, size - k, known), 'left']
  return [...consistencySteps(0n, end - k, size - k, false), 'shared']
}

export function verifySubtreeConsistency(suite, given) {
  const { proof, start, end, size, subtree_root: subtreeRoot, root: expected } = given
  requireSubtree(start, end, size)
  if (start === end) {
    requireDigests(proof, 0)
    requireRoot(subtreeRoot, suite.empty)
    return
  }
  const steps = consistencySteps(start, end, size, true)
  requireDigests(proof, steps.length)
  require(isBytes(subtreeRoot, 32), SHAPE, 'a root has 32 bytes')
  let [subtree, tree] = [subtreeRoot, subtreeRoot]
  proof.forEach((digest, i) => {
    if (steps[i] === 'seed') [subtree, tree] = [digest, digest]
    if (steps[i] === 'right') tree = suite.node(tree, digest)
    if (steps[i] === 'left') tree = suite.node(digest, tree)
    if (steps[i] === 'shared') {
      subtree = suite.node(digest, subtree)
      tree = suite.node(digest, tree)
    }
  })
  requireRoot(subtreeRoot, subtree)
  requireRoot(expected, tree)
}

export function verifyConsistency(suite, { old_size: oldSize, old_root: oldRoot, ...rest }) {
  require(isCount(oldSize) && oldSize > 0n, SHAPE, 'there is no proof for an empty tree')
  verifySubtreeConsistency(suite, { ...rest, start: 0n, end: oldSize, subtree_root: oldRoot })
}

// The ranges that the digests of a multiproof stand for, as its definition orders them.
export function multiproofRanges(indices, size) {
  const supplied = []
  const visit = (start, end, among) => {
    if (end - start === 1n) return
    const middle = start + split(end - start)
    for (const [a, b] of [[start, middle], [middle, end]]) {
      const inside = among.filter((i) => a <= i && i < b)
      if (inside.length) visit(a, b, inside)
      else supplied.push({ height: width(end - start), start: a, end: b })
    }
  }
  visit(0n, size, indices)
  return supplied.sort((a, b) => Number(a.height - b.height) || (a.start < b.start ? -1 : 1))
}

export function verifyMultiproof(suite, { proof, leaves, indices, size, root: expected }) {
  require(isCount(size), SHAPE, 'no such size')
  require(Array.isArray(indices) && indices.length > 0, SHAPE, 'no indices')
  require(indices.every((i) => isCount(i) && i < size), SHAPE, 'no such leaf')
  require(indices.every((i, at) => at === 0 || indices[at - 1] < i), SHAPE, 'not increasing')
  requireDigests(leaves, indices.length)
  const supplied = multiproofRanges(indices, size)
  requireDigests(proof, supplied.length)
  const known = new Map(supplied.map(({ start, end }, i) => [`${start} ${end}`, proof[i]]))
  indices.forEach((index, i) => known.set(`${index} ${index + 1n}`, leaves[i]))
  const node = (start, end) => {
    const found = known.get(`${start} ${end}`)
    if (found) return found
    const middle = start + split(end - start)
    return suite.node(node(start, middle), node(middle, end))
  }
  requireRoot(expected, node(0n, size))
}
