// Points, signatures, statements, committees and submissions.

import * as bls from '../src/bls.js'
import { bytesToHex, hexToBytes } from '../src/bytes.js'
import { committee, verifySubmission } from '../src/settlement.js'
import { decodeStatement, digest } from '../src/statements.js'

const seen = new Map()

// A committee of a case; most cases have the same, whose proofs are verified once.
function committeeOf(given) {
  const name = JSON.stringify(given)
  if (seen.has(name)) return seen.get(name)
  const chain = BigInt(given.chain)
  const members = given.members.map(({ key, proof, weight, contract, registrant }) => ({
    key: hexToBytes(key),
    proof: hexToBytes(proof),
    weight,
    chain,
    contract: hexToBytes(contract),
    registrant: hexToBytes(registrant),
  }))
  const found = committee({ chain, contract: hexToBytes(given.contract), members })
  seen.set(name, found)
  return found
}

function proven({ key, proof, binding, domain }) {
  const found = bls.publicKey(hexToBytes(key))
  bls.verifyPossession(
    found,
    bls.signature(hexToBytes(proof)),
    hexToBytes(binding),
    hexToBytes(domain),
  )
  return found
}

export const OPERATIONS = {
  'bls/public-key': ({ data }) => bytesToHex(bls.eip2537(bls.publicKey(hexToBytes(data)))),
  'bls/signature': ({ data }) => void bls.signature(hexToBytes(data)),
  'bls/verify': ({ key, message, domain, signature }) =>
    bls.verify(
      bls.publicKey(hexToBytes(key)),
      hexToBytes(message),
      hexToBytes(domain),
      bls.signature(hexToBytes(signature)),
    ),
  'bls/possession': (given) => void proven(given),
  'bls/aggregate': ({ keys, message, domain, signature }) =>
    bls.verifyAggregate(
      keys.map(proven),
      hexToBytes(message),
      hexToBytes(domain),
      bls.signature(hexToBytes(signature)),
    ),
  'statements/statement': ({ kind, data }) =>
    bytesToHex(digest(decodeStatement(kind, hexToBytes(data)))),
  'statements/committee': (given) => bytesToHex(committeeOf(given).id),
  'statements/submission': ({ kind, data, head, incoming }) => {
    const before = {
      committee: committeeOf(head.committee),
      sequence: BigInt(head.sequence),
      epoch: BigInt(head.epoch),
      root: hexToBytes(head.root),
    }
    const taking = incoming && committeeOf(incoming)
    const after = verifySubmission(kind, hexToBytes(data), before, taking)
    return (
      after && {
        epoch: String(after.epoch),
        sequence: String(after.sequence),
        committee: bytesToHex(after.committee.id),
        root: bytesToHex(after.root),
      }
    )
  },
}
