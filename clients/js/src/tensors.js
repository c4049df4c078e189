// Canonical bytes of tensors (specs/trace.md, What is committed to).

import { require } from './errors.js'

const REASON = 'malformed-encoding'

const integers = (read, size) => ({ size, read: (view, at) => [view[read](at, true)] })
const floats = (size, read) => ({ size, float: true, read: (view, at) => [read(view, at)] })
const both = (size, half) => ({
  size: 2 * size,
  float: true,
  read: (view, at) => [view[half](at, true), view[half](at + size, true)],
})

// A float of `exponent` bits of exponent and `digits` of mantissa.
export function narrowFloat(bits, exponent, digits, infinite = true) {
  const sign = bits >> (exponent + digits) ? -1 : 1
  const e = (bits >> digits) & ((1 << exponent) - 1)
  const m = bits & ((1 << digits) - 1)
  const bias = 2 ** (exponent - 1) - 1
  const last = (1 << exponent) - 1
  if (infinite && e === last) return m ? NaN : sign * Infinity
  if (!infinite && e === last && m === (1 << digits) - 1) return NaN
  if (e === 0) return sign * m * 2 ** (1 - bias - digits)
  return sign * (1 + m / 2 ** digits) * 2 ** (e - bias)
}

export const DTYPES = {
  bool: { size: 1, read: (view, at) => [view.getUint8(at)] },
  int8: integers('getInt8', 1),
  int16: integers('getInt16', 2),
  int32: integers('getInt32', 4),
  int64: integers('getBigInt64', 8),
  uint8: integers('getUint8', 1),
  uint16: integers('getUint16', 2),
  uint32: integers('getUint32', 4),
  uint64: integers('getBigUint64', 8),
  float8_e4m3fn: floats(1, (view, at) => narrowFloat(view.getUint8(at), 4, 3, false)),
  float8_e5m2: floats(1, (view, at) => narrowFloat(view.getUint8(at), 5, 2)),
  float16: floats(2, (view, at) => narrowFloat(view.getUint16(at, true), 5, 10)),
  bfloat16: floats(2, (view, at) => narrowFloat(view.getUint16(at, true), 8, 7)),
  float32: floats(4, (view, at) => view.getFloat32(at, true)),
  float64: floats(8, (view, at) => view.getFloat64(at, true)),
  complex64: both(4, 'getFloat32'),
  complex128: both(8, 'getFloat64'),
}

export const count = (shape) => shape.reduce((a, b) => a * b, 1)

export const size = ({ dtype, shape }) => count(shape) * DTYPES[dtype].size

export function requireTensor(tensor, data) {
  require(data.length === size(tensor), REASON, `a tensor has ${size(tensor)} bytes`)
  if (tensor.dtype === 'bool') {
    require(data.every((byte) => byte <= 1), REASON, 'a boolean is 0 or 1')
  }
}

// The elements of a tensor, in C order; two numbers for a complex one.
export function elements(tensor, data) {
  requireTensor(tensor, data)
  const { size, read } = DTYPES[tensor.dtype]
  const view = new DataView(data.buffer, data.byteOffset, data.length)
  return Array.from({ length: count(tensor.shape) }, (_, i) => read(view, i * size)).flat()
}
