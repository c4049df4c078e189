// Everything that a device can send wrong ends in a Refused, with the reason that the
// specifications give it. Anything else that is thrown is a mistake of this program.

export class Refused extends Error {
  constructor(reason, message = reason) {
    super(message)
    this.reason = reason
  }
}

export function refuse(reason, message) {
  throw new Refused(reason, message)
}

export function require(condition, reason, message) {
  if (!condition) refuse(reason, message)
}
