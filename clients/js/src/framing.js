// What is signed of a message: framed(m, domain) of specs/bls.md.

import { concatBytes } from './bytes.js'

export function framed(message, domain) {
  if (domain.length < 1 || domain.length > 255) throw new RangeError('a domain has 1 to 255 bytes')
  return concatBytes(Uint8Array.of(domain.length), domain, message)
}
