// Audits of a part: draws, ids of plans, and openings (specs/audit.md, sections 4 and 5).
//
// A plan is {program, seed, population, layers, rows, leaves, copies}: rows are undefined where all
// are audited; a copy is {tensor, source, start}.

import { compare, concatBytes, equal, littleEndian, startsWith, utf8ToBytes } from './bytes.js'
import { encode, taggedHash } from './encoding.js'
import { Refused, refuse, require } from './errors.js'
import { SUITES, multiproofRanges, verifyMultiproof } from './merkle.js'
import { DTYPES, count, requireTensor } from './tensors.js'
import { leaves as leavesOf } from './trace.js'

const { blake3 } = SUITES
const STRUCTURE = 'opening-structure'
const HEADER = 64

export const MAGIC = concatBytes(utf8ToBytes('verifiable audit 2'), new Uint8Array(14))

const ascending = (numbers) => [...numbers].sort((a, b) => a - b)
const range = (start, stop) => Array.from({ length: stop - start }, (_, i) => start + i)

const eightBytes = (number) => littleEndian(BigInt(number), 8)

// The numbers with the smallest digests, ascending.
function smallest(numbers, wanted, tag, ...of) {
  const hashed = numbers.map((number) => [taggedHash(tag, ...of, eightBytes(number)), number])
  hashed.sort(([a], [b]) => compare(a, b))
  return ascending(hashed.slice(0, wanted).map(([, number]) => number))
}

export function drawLayers(seed, population, wanted) {
  return smallest(range(0, population), wanted, 'layer of an audit', seed)
}

// The rows of a layer that are audited; without a layer, of all layers alike.
export function drawRows(seed, layer, { length, count: wanted, block, answer }) {
  if (wanted >= length) return range(0, length)
  const of = layer === undefined ? [seed] : [seed, eightBytes(layer)]
  const others = range(0, Math.ceil(length / block)).filter((k) => !answer.includes(k))
  const left = wanted / block - answer.length
  const chosen = [...smallest(others, left, 'rows of an audit', ...of), ...answer]
  const found = []
  let first = length
  for (const k of ascending(chosen).reverse()) {
    const stop = Math.min((k + 1) * block, first)
    first = stop - block
    found.push(...range(first, stop))
  }
  return ascending(found)
}

function runs(indices) {
  const found = []
  for (const i of indices) {
    const last = found.at(-1)
    if (last?.[1] === i) last[1] = i + 1
    else found.push([i, i + 1])
  }
  return found
}

const integers = (value) => (Array.isArray(value) ? value.map(integers) : BigInt(value))

export function planId({ program, seed, population, layers, rows, leaves }) {
  const content = [population, layers, runs(leaves), ...(rows === undefined ? [] : [rows])]
  return taggedHash('plan of an audit', program, seed, encode(integers(content)))
}

const rowOf = ({ dtype, shape }) => count(shape.slice(-1)) * DTYPES[dtype].size
const total = (sizes) => sizes.reduce((a, b) => a + b, 0)

// The data of each leaf of a plan, in order; leaves of copies from what they follow from, if they
// were left out.
function pieces(layout, plan, data) {
  const every = leavesOf(layout)
  const places = plan.leaves.map((index) => every[index])
  const row = ({ tensor }) => rowOf(layout.tensors[tensor])
  const sizes = places.map((place) => (place.stop - place.start) * row(place))
  const copy = ({ tensor }) => plan.copies.find((found) => found.tensor === tensor)
  const proof = 32 * multiproofRanges(plan.leaves.map(BigInt), BigInt(every.length)).length
  const most = HEADER + total(sizes) + proof
  const least = most - total(sizes.filter((_, i) => copy(places[i])))
  require(data.length === least || data.length === most, STRUCTURE, 'another length')
  require(startsWith(data, MAGIC), STRUCTURE, 'another header')
  let at = HEADER
  const sent = places.map((place, i) =>
    copy(place) && data.length < most ? undefined : data.subarray(at, (at += sizes[i])),
  )
  const follows = (place, i) => {
    const { source, start } = copy(place)
    // The leaves of the source that are opened, side by side, begin with a row of it.
    const own = places.map((found, n) => [found, sent[n]]).filter(([found]) => found.tensor === source)
    const bytes = concatBytes(...own.map(([, piece]) => piece))
    const from = start + place.start * row(place) - own[0][0].start * row(own[0][0])
    return bytes.subarray(from, from + sizes[i])
  }
  const derived = places.map((place, i) => (copy(place) ? follows(place, i) : sent[i]))
  if (data.length === most && most > least) {
    const same = derived.every((piece, i) => equal(piece, sent[i]))
    require(!same, STRUCTURE, 'leaves are sent that follow from others')
  }
  return { places, found: data.length === most ? sent : derived, proof: data.subarray(at) }
}

// Verify an opening; returns the data of each leaf of the plan.
export function verifyPartialOpening(layout, plan, commitment, data) {
  const { places, found, proof } = pieces(layout, plan, data)
  require(equal(data.subarray(32, HEADER), planId(plan)), 'opening-plan')
  const size = leavesOf(layout).length
  require(commitment.size === BigInt(size), 'opening-mismatch', 'another size')
  try {
    verifyMultiproof(blake3, {
      proof: range(0, proof.length / 32).map((i) => proof.subarray(32 * i, 32 * i + 32)),
      leaves: found.map(blake3.leaf),
      indices: plan.leaves.map(BigInt),
      size: commitment.size,
      root: commitment.root,
    })
  } catch (error) {
    if (error instanceof Refused) refuse('opening-mismatch', error.message)
    throw error
  }
  places.forEach(({ tensor, start, stop }, i) => {
    const { dtype, shape } = layout.tensors[tensor]
    try {
      requireTensor({ dtype, shape: [stop - start, count(shape.slice(-1))] }, found[i])
    } catch (error) {
      if (error instanceof Refused) refuse('opening-leaf', error.message)
      throw error
    }
  })
  return found
}
