// Statements of a committee (specs/settlement.md, Statements): words of 32 bytes.

import { sha256 } from '@noble/hashes/sha2.js'
import { fromBigEndian, utf8ToBytes } from './bytes.js'
import { require } from './errors.js'
import { framed } from './framing.js'

const REASON = 'malformed-encoding'
const number = (width) => ({ width, read: fromBigEndian })
const octets = (width) => ({ width, read: (data) => data.slice() })
const [uint256, uint64, address, bytes32] = [number(32), number(8), octets(20), octets(32)]

const here = { chain: uint256, contract: address }
const term = { committee: bytes32, sequence: uint64 }
const attempt = { ...here, ...term, epoch: uint64, attempt: uint64 }
const zero = (data) => data.every((byte) => byte === 0)

export const KINDS = {
  epoch: {
    domain: 'verifiable epoch statement 1',
    words: {
      ...here,
      epoch: uint64,
      root: bytes32,
      size: uint64,
      policy: bytes32,
      ...term,
      previous: bytes32,
    },
    whole: ({ size }) => size > 0n,
  },
  rotation: {
    domain: 'verifiable committee rotation 1',
    words: { ...here, ...term, incoming: bytes32 },
  },
  prepare: { domain: 'verifiable settlement prepare 1', words: { ...attempt, choice: bytes32 } },
  lock: { domain: 'verifiable settlement lock 1', words: { ...attempt, choice: bytes32 } },
  report: {
    domain: 'verifiable settlement report 1',
    words: { ...attempt, locked: uint64, choice: bytes32 },
    whole: ({ attempt: number, locked, choice }) =>
      number > 0n && locked <= number && (locked === 0n) === zero(choice),
  },
}

export function decodeStatement(kind, data) {
  const { words, whole } = KINDS[kind]
  const names = Object.keys(words)
  require(data.length === 32 * names.length, REASON, `a statement has ${32 * names.length} bytes`)
  const found = { kind, words: data }
  names.forEach((name, i) => {
    const { width, read } = words[name]
    const word = data.subarray(32 * i, 32 * (i + 1))
    require(zero(word.subarray(0, 32 - width)), REASON, `${name} is wider than its type`)
    found[name] = read(word.subarray(32 - width))
  })
  require(found.chain > 0n, REASON, 'a chain id is not 0')
  require(whole === undefined || whole(found), REASON, 'a field out of range')
  return found
}

export const domain = (kind) => utf8ToBytes(KINDS[kind].domain)

// What attempts name as their choice.
export const digest = ({ kind, words }) => sha256(framed(words, domain(kind)))
