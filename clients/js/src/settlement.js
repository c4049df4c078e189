// Committees, and submissions judged against a head (specs/settlement.md).

import { sha256 } from '@noble/hashes/sha2.js'
import { bigEndian, compare, concatBytes, equal, isBytes, utf8ToBytes } from './bytes.js'
import * as bls from './bls.js'
import { decode } from './encoding.js'
import { refuse, require } from './errors.js'
import { decodeStatement, domain } from './statements.js'

const REASON = 'malformed-encoding'
const REGISTRATION = utf8ToBytes('verifiable registration 1')
const word = (value) => bigEndian(value, 32)
const address = (data) => concatBytes(new Uint8Array(12), data)

// Members {key, proof, weight, chain, contract, registrant} of a committee at a contract.
export function committee({ chain, contract, members }) {
  const found = members.map((member) => {
    const key = bls.publicKey(member.key)
    const binding = concatBytes(word(member.chain), address(member.contract), address(member.registrant))
    bls.verifyPossession(key, bls.signature(member.proof), binding, REGISTRATION)
    return { ...member, key, encoded: bls.eip2537(key) }
  })
  require(found.length > 0, 'no-members')
  require(found.length <= 256, 'too-many-members')
  found.slice(1).forEach(({ encoded }, i) => {
    const order = compare(found[i].encoded, encoded)
    require(order !== 0, 'duplicate-key')
    require(order < 0, 'unordered-members')
  })
  for (const member of found) {
    const here = member.chain === chain && equal(member.contract, contract)
    require(here, 'unregistered-key')
  }
  require(found.every(({ registrant }) => equal(registrant, found[0].registrant)), 'other-registrant')
  try {
    bls.sum(found.map(({ key }) => key))
  } catch {
    refuse('infinite-key')
  }
  const parts = found.flatMap(({ encoded, weight }) => [encoded, word(weight)])
  const id = sha256(concatBytes(word(found.length), ...parts))
  return { chain, contract, members: found, id }
}

function signers({ members }, bitmap) {
  require(bitmap.length === Math.ceil(members.length / 8), 'bitmap-length')
  const named = [...bitmap].flatMap((byte, i) =>
    [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => (byte >> bit) & 1).map((bit) => 8 * i + bit),
  )
  require(named.every((i) => i < members.length), 'bitmap-excess')
  return named.map((i) => members[i])
}

const weight = (members) => members.reduce((total, member) => total + BigInt(member.weight), 0n)

export function decodeSubmission(kind, data) {
  const fields = decode(data, { maxSize: 512 })
  const formed = Array.isArray(fields) && fields.length === 5
  require(formed, REASON, 'a submission has five fields')
  const [name, version, words, signed, bitmap] = fields
  require(name === `${kind} submission` && version === 1n, REASON, 'another kind or version')
  require([words, signed, bitmap].every((field) => isBytes(field)), REASON, 'fields are bytes')
  require(bitmap.length >= 1 && bitmap.length <= 32, REASON, 'a bitmap has 1 to 32 bytes')
  return { statement: decodeStatement(kind, words), signature: bls.signature(signed), bitmap }
}

// Judge a submission against a head {committee, sequence, epoch, root}; returns the next head, or
// null after a certificate.
export function verifySubmission(kind, data, head, incoming) {
  const { statement, signature, bitmap } = decodeSubmission(kind, data)
  const office = head.committee
  require(statement.chain === office.chain, 'other-chain')
  require(equal(statement.contract, office.contract), 'other-contract')
  if (kind !== 'rotation') {
    require(statement.epoch >= head.epoch, 'epoch-settled')
    require(statement.epoch <= head.epoch, 'epoch-ahead')
  }
  require(equal(statement.committee, office.id), 'other-committee')
  require(statement.sequence === head.sequence, 'other-sequence')
  if (kind === 'epoch') require(equal(statement.previous, head.root), 'other-previous-root')
  if (kind === 'rotation') {
    require(equal(statement.incoming, incoming.id), 'other-incoming')
    const here = incoming.chain === office.chain && equal(incoming.contract, office.contract)
    require(here, 'unregistered-key')
  }
  const named = signers(office, bitmap)
  require(3n * weight(named) > 2n * weight(office.members), 'no-quorum')
  bls.verifyAggregate(named.map(({ key }) => key), statement.words, domain(kind), signature)
  if (kind === 'epoch') return { ...head, epoch: head.epoch + 1n, root: statement.root }
  if (kind === 'rotation') return { ...head, committee: incoming, sequence: head.sequence + 1n }
  return null
}
