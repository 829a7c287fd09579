// The official MCP clients for TypeScript, versions 1 and 2, against a running daemon.
// VOLANT_URL and VOLANT_TOKEN name it; tests/devvm/clients.sh sets them.
import assert from 'node:assert/strict'
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport as TransportV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'

const url = new URL(process.env.VOLANT_URL + '/mcp')
const requestInit = { headers: { authorization: `Bearer ${process.env.VOLANT_TOKEN}` } }
const info = { name: 'volantd-tests', version: '1' }

async function life(label, client, transport) {
  const name = `ts-${label}`
  await client.connect(transport)
  const { tools } = await client.listTools()
  assert.ok(tools.some((tool) => tool.name === 'vm_exec'), label)
  const call = async (tool, args) => {
    const result = await client.callTool({ name: tool, arguments: args })
    assert.ok(!result.isError, JSON.stringify(result))
    return result.structuredContent
  }
  assert.equal((await call('vm_create', { name, memory_mb: 96, wait: true })).status, 'running')
  const ran = await call('vm_exec', { name, argv: ['echo', 'hello'] })
  assert.deepEqual([ran.exit_code, ran.stdout], [0, 'hello\n'])
  assert.equal(typeof (await call('vm_logs', { name, tail: 5 })).text, 'string')
  await call('vm_delete', { name })
  await client.close()
  console.log(`  ${label}: ${tools.length} tools, a VM's life`)
}

await life('v1', new ClientV1(info), new TransportV1(url, { requestInit }))
for (const mode of ['legacy', 'auto', { pin: '2026-07-28' }]) {
  const label = typeof mode === 'string' ? `v2-${mode}` : 'v2-pinned'
  const client = new Client(info, { versionNegotiation: { mode } })
  await life(label, client, new StreamableHTTPClientTransport(url, { requestInit }))
}
const refused = new Client(info)
await assert.rejects(refused.connect(new StreamableHTTPClientTransport(url)), 'without a token')
console.log('  without a token: refused')
