// The operations of the family `partial`: audits of a part.

import { bytesToHex, hexToBytes } from '../src/bytes.js'
import { require } from '../src/errors.js'
import { drawLayers, drawRows, planId, verifyPartialOpening } from '../src/partial.js'

const requireSame = (claimed, computed) => require(String(claimed) === String(computed), 'wrong-value')

const planOf = ({ program, seed, copies = [], ...rest }) => ({
  ...rest,
  program: hexToBytes(program),
  seed: hexToBytes(seed),
  copies: copies.map(([tensor, source, start]) => ({ tensor, source, start })),
})

export const OPERATIONS = {
  'partial/layers': ({ seed, population, count, layers }) =>
    requireSame(layers, drawLayers(hexToBytes(seed), population, count)),
  'partial/rows': ({ seed, layer, rows, ...sizes }) =>
    requireSame(rows, drawRows(hexToBytes(seed), layer, sizes)),
  'partial/plan': ({ plan, ...given }) => requireSame(plan, bytesToHex(planId(planOf(given)))),
  'partial/opening': ({ layout, leaf_bytes: leafBytes, commitment, data, ...given }) =>
    verifyPartialOpening(
      { tensors: layout, leafBytes },
      planOf(given),
      { root: hexToBytes(commitment.root), size: BigInt(commitment.size) },
      hexToBytes(data),
    ).map(bytesToHex),
}
