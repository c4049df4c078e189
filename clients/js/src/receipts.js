// COSE receipts of verdicts (specs/receipts.md).

import { decode as decodeTagged } from 'cborg'
import { concatBytes, equal, isBytes } from './bytes.js'
import { decode, encode } from './encoding.js'
import { refuse, require } from './errors.js'
import { verifies } from './identities.js'
import { SUITES, verifyInclusion } from './merkle.js'
import { VERDICT, decodeMessage } from './messages.js'
import { decodeStatement } from './statements.js'

const REASON = 'malformed-encoding'
const MAX_SIZE = 4096
const { sha256 } = SUITES

function protectedHeader({ issuer, words }) {
  return encode(new Map([[1n, -8n], [4n, issuer], [395n, 1n], ['epoch statement', words]]))
}

// The one encoding of a receipt.
function encodeReceipt({ issuer, words, size, index, path, signature }) {
  const proof = encode([size, index, path])
  const unprotected = new Map([[396n, new Map([[-1n, [proof]]])]])
  const fields = [protectedHeader({ issuer, words }), unprotected, null, signature]
  return concatBytes(Uint8Array.of(0xd2), encode(fields))
}

// Only what varies is taken out of the structure; all else is compared in the end.
export function decodeReceipt(data) {
  require(data.length <= MAX_SIZE, REASON, 'too long')
  const options = { strict: true, allowIndefinite: false, useMaps: true, allowBigInt: true }
  let found
  try {
    const read = (bytes, more = {}) => decodeTagged(bytes, { ...options, ...more })
    const [header, unprotected, , signature] = read(data, { tags: { 18: (inner) => inner() } })
    const outer = read(header)
    const [proof] = unprotected.get(396).get(-1)
    const [size, index, path] = decode(proof, { maxSize: MAX_SIZE })
    const [issuer, words] = [outer.get(4), outer.get('epoch statement')]
    found = { issuer, words, size, index, path, signature }
  } catch (error) {
    refuse(REASON, error.message)
  }
  const { issuer, words, size, index, path, signature } = found
  require(isBytes(issuer, 32) && isBytes(signature, 64) && isBytes(words), REASON, 'a wrong size')
  const statement = decodeStatement('epoch', words)
  const placed = typeof index === 'bigint' && index >= 0n && index < statement.size
  require(size === statement.size && placed, REASON, 'a position out of range')
  const digests = Array.isArray(path) && path.length <= 64 && path.every((d) => isBytes(d, 32))
  require(digests, REASON, 'a path has at most 64 digests')
  require(equal(encodeReceipt(found), data), REASON, 'not the one encoding of a receipt')
  return { ...found, statement }
}

// Verify that a statement settles the verdict of this encoding.
export function verifyVerdict(record, { index, path, statement }) {
  const verdict = decodeMessage(VERDICT, record)
  require(verdict.epoch === statement.epoch, 'other-epoch')
  require(equal(verdict.policy, statement.policy), 'other-policy')
  const { size, root } = statement
  verifyInclusion(sha256, { proof: path, leaf: sha256.leaf(record), index, size, root })
  return verdict
}

export function verifyReceipt(data, record, issuer) {
  const receipt = decodeReceipt(data)
  const verdict = verifyVerdict(record, receipt)
  const structure = ['Signature1', protectedHeader(receipt), new Uint8Array(), receipt.statement.root]
  const valid =
    equal(receipt.issuer, issuer.id) && verifies(issuer, receipt.signature, encode(structure))
  require(valid, 'invalid-signature')
  return verdict
}
