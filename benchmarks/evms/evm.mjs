// Executes calls in @ethereumjs/vm by the rules of Prague: one JSON object a line, in and out.
//
//   in    {to: hex or null, from: hex, data: hex, gas: number, keep: boolean}
//   out   {output: hex, gas: number, error: text or null, logs: [[topics], data], root: hex}
//
// As in protocols/contracts/evm.py, there are no blocks or fees, each call starts with cold storage,
// and a message to no address creates a contract.

import { createInterface } from 'node:readline'
import { Common, Hardfork, Mainnet } from '@ethereumjs/common'
import { createAddressFromString, bytesToHex, hexToBytes } from '@ethereumjs/util'
import { createVM } from '@ethereumjs/vm'

const common = new Common({
  chain: { ...Mainnet, chainId: Number(process.argv[2]) },
  hardfork: Hardfork.Prague,
})
const vm = await createVM({ common })
const state = vm.stateManager

async function call({ to, from, data, gas, keep }) {
  const caller = createAddressFromString(from)
  const journal = vm.evm.journal
  journal.cleanJournal()
  vm.evm.transientStorage.clear()
  for (const address of vm.evm.precompiles.keys()) journal.addAlwaysWarmAddress(address)
  for (const address of [from, to]) if (address) journal.addAlwaysWarmAddress(address)
  await state.checkpoint()
  const done = await vm.evm.runCall({
    caller,
    to: to ? createAddressFromString(to) : undefined,
    data: hexToBytes(data),
    gasLimit: BigInt(gas),
    skipBalance: true,
    skipNonceIncrement: to !== null,
  })
  await (keep ? state.commit() : state.revert())
  const { returnValue, executionGasUsed, exceptionError, logs } = done.execResult
  return {
    output: to ? bytesToHex(returnValue) : done.createdAddress?.toString() ?? '0x',
    gas: Number(executionGasUsed),
    error: exceptionError ? exceptionError.error : null,
    logs: (logs ?? []).map(([, topics, body]) => [topics.map(bytesToHex), bytesToHex(body)]),
    root: keep ? bytesToHex(await state.getStateRoot()) : null,
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(await call(JSON.parse(line))) + '\n')
}
