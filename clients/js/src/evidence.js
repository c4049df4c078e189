// Evidence, as far as it needs no replay: its encoding and its opening (specs/evidence.md, 2 and 4).
//
// The judge's own program says which tensors are opened for a claim or an output.

import { concatBytes, equal, fromBigEndian, startsWith, utf8ToBytes } from './bytes.js'
import { require } from './errors.js'
import { count, size } from './tensors.js'
import { leaves, verifyOpening } from './trace.js'

const REASON = 'malformed-encoding'
const MAGIC = concatBytes(utf8ToBytes('verifiable evidence 1'), new Uint8Array(11))
const HEADER = 157

export function decodeEvidence({ id, layout, opened }, data) {
  require(data.length >= HEADER && startsWith(data, MAGIC), REASON, 'another header')
  require(equal(data.subarray(32, 64), id), 'misnamed', 'about another program')
  require(data[136] <= 1, REASON, 'neither a claim nor an output')
  const kind = ['claim', 'output'][data[136]]
  const index = Number(fromBigEndian(data.subarray(137, 141)))
  require(index < opened[kind].length, REASON, `no such ${kind}`)
  const places = leaves(layout)
  const indices = places.flatMap(({ tensor }, i) => (opened[kind][index].includes(tensor) ? [i] : []))
  let at = HEADER
  const found = indices.map((i) => {
    const { tensor, start, stop } = places[i]
    const { dtype, shape } = layout.tensors[tensor]
    return data.subarray(at, (at += size({ dtype, shape: [stop - start, count(shape.slice(-1))] })))
  })
  const rest = data.subarray(Math.min(at, data.length))
  const digests = rest.length / 32
  const fits = at <= data.length && Number.isInteger(digests) && digests <= 64 * found.length
  require(fits, REASON, 'leaves and digests have another length')
  const proof = Array.from({ length: digests }, (_, i) => rest.subarray(32 * i, 32 * i + 32))
  const commitment = { root: data.slice(96, 128), size: fromBigEndian(data.subarray(128, 136)) }
  require(commitment.size > 0n, REASON, 'a size is an integer from 1')
  const [trip, row] = [data.subarray(141, 149), data.subarray(149, 157)].map(fromBigEndian)
  const opening = { leaves: found, proof }
  return { kind, index, trip, row, parameters: data.slice(64, 96), commitment, indices, opening }
}

export function verifyEvidenceOpening(program, data) {
  const evidence = decodeEvidence(program, data)
  verifyOpening(program.layout, evidence.commitment, evidence.indices, evidence.opening)
  return evidence
}
