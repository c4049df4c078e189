// One whole audit of a network of two layers, and evidence about it.

import { matrix, verifyNetwork } from '../src/audit.js'
import { bytesToHex, hexToBytes } from '../src/bytes.js'
import { verifyEvidenceOpening } from '../src/evidence.js'

const wide = (text, columns) => matrix(hexToBytes(text), columns, true)
const single = (text, columns) => matrix(hexToBytes(text), columns)

export const OPERATIONS = {
  'audit/audit': (given) => {
    const { rows, widths, draws, eps, phi } = given
    const key = given.key.map((part, i) => ({
      vectors: single(part.vectors, draws),
      image: wide(part.image, draws),
      weights: wide(part.weights, widths[i + 1])[0],
      norms: wide(part.norms, widths[i])[0],
      floor: wide(part.floor, 1)[0][0],
    }))
    const job = {
      ...{ rows, widths, draws, eps, phi, key },
      x: single(given.x, widths[0]),
      b1: single(given.b1, widths[1])[0],
      b2: single(given.b2, widths[2])[0],
    }
    const { root, size } = given.commitment
    const commitment = { root: hexToBytes(root), size: BigInt(size) }
    const sent = { claims: given.claims.map(hexToBytes), y: hexToBytes(given.y) }
    verifyNetwork(job, commitment, sent)
  },  'evidence/open': ({ program, layout, opened, data }) => {
    const own = { id: hexToBytes(program), layout: { tensors: layout, leafBytes: 1 << 16 }, opened }
    const { kind, index, trip, row, parameters } = verifyEvidenceOpening(own, hexToBytes(data))
    const found = { kind, index, trip: String(trip), row: String(row) }
    return { ...found, parameters: bytesToHex(parameters) }
  },
}
