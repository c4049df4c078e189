// Every case of specs/vectors must end as it says: "ok" with its output, or its reason.

import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { test } from 'node:test'
import { Refused } from '../src/errors.js'
import { OPERATIONS } from './operations.js'

const FOLDER = new URL('../../../specs/vectors/', import.meta.url)
const files = readdirSync(FOLDER).filter((name) => name.endsWith('.json'))

function outcome(operation, input) {
  try {
    return { expect: 'ok', output: OPERATIONS[operation](input) ?? undefined }
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    return { expect: error.reason, output: undefined }
  }
}

test('there are families', () => assert(files.length > 0))

for (const file of files) {
  const { family, shared, cases } = JSON.parse(readFileSync(new URL(file, FOLDER)))
  test(`${family}: ${cases.length} cases`, () => {
    for (const { id, description, operation, input, expect, output } of cases) {
      const found = outcome(`${family}/${operation}`, { ...shared, ...input })
      assert.deepEqual(found, { expect, output }, `${id}: ${description}`)
    }
  })
}
