// Canonical messages (specs/trace.md, Messages) and tagged hashes (specs/merkle.md, Hashes).
//
// An integer is a BigInt and a float a Float, since the message 1 is not the message 1.0.

import { blake3 } from '@noble/hashes/blake3.js'
import { Tokenizer, Type } from 'cborg'
import { bigEndian, compare, concatBytes, equal, littleEndian, utf8ToBytes } from './bytes.js'
import { Refused, refuse, require } from './errors.js'

const REASON = 'malformed-encoding'
const MAX_DEPTH = 16
const TOKENS = {
  strict: true,
  allowIndefinite: false,
  allowUndefined: false,
  allowInfinity: false,
  allowNaN: false,
  allowBigInt: true,
  retainStringBytes: true,
}

const TEXT = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export class Float {
  constructor(value) {
    this.value = value
  }
}

export function taggedHash(tag, ...parts) {
  const framed = parts.flatMap((part) => [littleEndian(part.length, 8), part])
  return blake3(concatBytes(...framed), { context: utf8ToBytes(`verifiable v1 ${tag}`) })
}

export function encode(value) {
  if (value === null) return Uint8Array.of(0xf6)
  if (value === false) return Uint8Array.of(0xf4)
  if (value === true) return Uint8Array.of(0xf5)
  if (typeof value === 'bigint') return value >= 0n ? head(0, value) : head(1, -1n - value)
  if (value instanceof Float) return encodeFloat(value.value)
  if (value instanceof Uint8Array) return concatBytes(head(2, value.length), value)
  if (typeof value === 'string') {
    const text = utf8ToBytes(value)
    return concatBytes(head(3, text.length), text)
  }
  if (Array.isArray(value)) return concatBytes(head(4, value.length), ...value.map(encode))
  if (value instanceof Map) {
    const pairs = [...value].map(([key, item]) => [encode(key), encode(item)])
    pairs.sort(([a], [b]) => compare(a, b))
    return concatBytes(head(5, value.size), ...pairs.flat())
  }
  throw new TypeError(`no encoding for ${value}`)
}

function head(major, count) {
  const number = BigInt(count)
  if (number < 24n) return Uint8Array.of((major << 5) | Number(number))
  for (let i = 0; i < 4; i++) {
    if (number < 1n << BigInt(8 << i)) {
      return concatBytes(Uint8Array.of((major << 5) | (24 + i)), bigEndian(number, 1 << i))
    }
  }
  throw new RangeError('a head holds 64 bits')
}

function encodeFloat(value) {
  const view = new DataView(new ArrayBuffer(9))
  const half = halfBits(value)
  if (half !== null) {
    view.setUint8(0, 0xf9)
    view.setUint16(1, half)
    return new Uint8Array(view.buffer, 0, 3)
  }
  if (Math.fround(value) === value) {
    view.setUint8(0, 0xfa)
    view.setFloat32(1, value)
    return new Uint8Array(view.buffer, 0, 5)
  }
  view.setUint8(0, 0xfb)
  view.setFloat64(1, value)
  return new Uint8Array(view.buffer)
}

// The bits of a finite number as a float of 16 bits, or null if it is none.
function halfBits(value) {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
  const size = Math.abs(value)
  if (size > 65504) return null
  const exponent = size < 2 ** -14 ? -14 : Math.floor(Math.log2(size))
  const units = size / 2 ** (exponent - 10)
  if (!Number.isInteger(units) || units >= 2048) return null
  return sign | (units < 1024 ? units : ((exponent + 15) << 10) | (units - 1024))
}

// The value of bytes that a device sent. Refuses all that is not the one encoding of a value.
export function decode(data, { maxSize = 1 << 16, maxItems = 1 << 12 } = {}) {
  require(data.length <= maxSize, REASON, 'too long')
  const tokens = new Tokenizer(data, TOKENS)
  let items = 0
  const next = (depth) => {
    require(++items <= maxItems, REASON, 'too many items')
    require(depth <= MAX_DEPTH, REASON, 'nested too deep')
    require(!tokens.done(), REASON, 'bytes are missing')
    const token = tokens.next()
    switch (token.type) {
      case Type.uint:
      case Type.negint:
        return BigInt(token.value)
      case Type.float:
        require(Number.isFinite(token.value), REASON, 'a float that is not finite')
        return new Float(token.value)
      case Type.string:
        // The package's own text lacks a byte order mark at its start.
        return TEXT.decode(token.byteValue)
      case Type.bytes:
      case Type.true:
      case Type.false:
      case Type.null:
        return token.value
      case Type.array: {
        const found = []
        for (let i = 0; i < token.value; i++) found.push(next(depth + 1))
        return found
      }
      case Type.map: {
        const found = new Map()
        for (let i = 0; i < token.value; i++) {
          const key = next(depth + 1)
          require(typeof key === 'string' && !found.has(key), REASON, 'not a map of the allowed kind')
          found.set(key, next(depth + 1))
        }
        return found
      }
      default:
        return refuse(REASON, `${token.type.name} is not allowed`)
    }
  }
  let value
  try {
    value = next(0)
  } catch (error) {
    if (error instanceof Refused) throw error
    refuse(REASON, error.message)
  }
  require(equal(encode(value), data), REASON, 'not the one encoding of its value')
  return value
}
