// Messages: one CBOR array each (specs/messages.md, Encoding), and signed ones.

import { bytesToHex, concatBytes, isBytes, startsWith } from './bytes.js'
import { decode, encode, taggedHash } from './encoding.js'
import { refuse, require } from './errors.js'
import { verifies } from './identities.js'

const REASON = 'malformed-encoding'
const SIGNATURE = Uint8Array.of(0x58, 0x40)

export const isUint = (value) => typeof value === 'bigint' && value >= 0n && value < 1n << 64n
export const isCount = (value) => isUint(value) && value > 0n
export const isDigest = (value) => isBytes(value, 32)
const orNull = (check) => (value) => value === null || check(value)

export const TRACE_RECEIPT = {
  kind: 'trace-receipt',
  maxSize: 256,
  fields: {
    worker: isDigest,
    job: isDigest,
    epoch: isUint,
    receipt: isDigest,
    trace_root: isDigest,
    trace_size: isCount,
  },
}

export const VERDICT = {
  kind: 'verdict',
  maxSize: 512,
  fields: {
    epoch: isUint,
    job: isDigest,
    worker: isDigest,
    verdict: (value) => ['accept', 'reject', 'indeterminate'].includes(value),
    reason: (value) => typeof value === 'string' && /^[a-z0-9-]{1,32}$/.test(value),
    commitment: orNull(isDigest),
    answer: orNull(isDigest),
    program: isDigest,
    policy: isDigest,
    checked: isUint,
    replayed: isUint,
  },
  whole: ({ verdict, commitment, answer }) =>
    (verdict === 'accept') === (answer !== null) && (answer === null || commitment !== null),
}

function prefix({ kind, fields }) {
  const count = 2 + Object.keys(fields).length
  return concatBytes(Uint8Array.of(0x80 | count), encode(kind), encode(1n))
}

// The fields of a message of a kind.
export function decodeMessage(message, data) {
  require(data.length <= message.maxSize, REASON, 'too long')
  require(startsWith(data, prefix(message)), REASON, `expected a ${message.kind}`)
  const names = Object.keys(message.fields)
  const [, , ...values] = decode(data, { maxItems: 3 + names.length })
  require(values.length === names.length, REASON, 'another number of fields')
  const found = Object.fromEntries(names.map((name, i) => [name, values[i]]))
  for (const name of names) {
    require(message.fields[name](found[name]), REASON, `${name} has a wrong type, size or range`)
  }
  require(message.whole === undefined || message.whole(found), REASON, 'fields contradict each other')
  return found
}

export const digest = ({ kind }, data) => taggedHash(`message ${kind}`, data)

// Authenticate the bytes of a sender, then read them. `identities` maps names in hexadecimal to
// identities; `seats` are names in hexadecimal, or undefined for any registered sender.
export function receive(message, data, identities, seats) {
  const start = concatBytes(prefix(message), Uint8Array.of(0x58, 0x20))
  require(data.length <= message.maxSize + 66, REASON, 'too long')
  require(data.length >= 66, REASON, 'no signature')
  const body = data.subarray(0, -66)
  const framed = startsWith(data.subarray(-66), SIGNATURE) && startsWith(body, start)
  require(framed && body.length >= start.length + 32, REASON, `expected a signed ${message.kind}`)
  const name = bytesToHex(body.subarray(start.length, start.length + 32))
  const sender = identities.get(name)
  if (sender === undefined) refuse('unknown-worker')
  require(seats === undefined || seats.has(name), 'not-seated')
  const valid = verifies(sender, data.subarray(-64), digest(message, body))
  require(valid, 'invalid-signature')
  return { ...decodeMessage(message, body), digest: digest(message, body) }
}
