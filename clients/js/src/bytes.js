import { bytesToHex, concatBytes, hexToBytes, utf8ToBytes } from '@noble/hashes/utils.js'

export { bytesToHex, concatBytes, hexToBytes, utf8ToBytes }

export function equal(a, b) {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}

// Bytewise lexicographic order: negative, zero or positive.
export function compare(a, b) {
  const shared = Math.min(a.length, b.length)
  for (let i = 0; i < shared; i++) if (a[i] !== b[i]) return a[i] - b[i]
  return a.length - b.length
}

export function startsWith(data, prefix) {
  return data.length >= prefix.length && equal(data.subarray(0, prefix.length), prefix)
}

export function littleEndian(number, size) {
  const out = new Uint8Array(size)
  let rest = BigInt(number)
  for (let i = 0; i < size; i++, rest >>= 8n) out[i] = Number(rest & 255n)
  return out
}

export const bigEndian = (number, size) => littleEndian(number, size).reverse()

export function fromLittleEndian(data) {
  let number = 0n
  for (let i = data.length - 1; i >= 0; i--) number = (number << 8n) | BigInt(data[i])
  return number
}

export const fromBigEndian = (data) => fromLittleEndian(data.slice().reverse())

export function isBytes(value, size) {
  return value instanceof Uint8Array && (size === undefined || value.length === size)
}
