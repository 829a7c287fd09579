// E2B's own SDK for JavaScript, as it comes from npm, against a running daemon.
//
// E2B_API_KEY, E2B_API_URL and E2B_SANDBOX_URL name the daemon; tests/devvm/clients.sh sets them.
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { CommandExitError, FileNotFoundError, NotFoundError, Sandbox } from 'e2b'

const requestTimeoutMs = 240_000

async function until(what, condition) {
  const deadline = Date.now() + 120_000
  while (!(await condition())) {
    assert(Date.now() < deadline, what)
    await sleep(200)
  }
}

const sandbox = await Sandbox.create('base', {
  timeoutMs: 600_000, requestTimeoutMs, metadata: { who: 'js' }, envs: { A: 'a' },
})
const ran = await sandbox.commands.run('echo out; echo err >&2; echo $A')
assert.deepEqual([ran.stdout, ran.stderr, ran.exitCode], ['out\na\n', 'err\n', 0])
await assert.rejects(sandbox.commands.run('exit 3'), (error) => error instanceof CommandExitError && error.exitCode === 3)
const handle = await sandbox.commands.run('cat; echo end', { background: true, stdin: true, timeoutMs: 0 })
await sandbox.commands.sendStdin(handle.pid, 'in\n')
assert((await sandbox.commands.list()).some((process) => process.pid === handle.pid))
await sandbox.commands.closeStdin(handle.pid)
assert.equal((await handle.wait()).stdout, 'in\nend\n')
const long = await sandbox.commands.run('sleep 1000', { background: true, timeoutMs: 0 })
assert.equal(await sandbox.commands.kill(long.pid), true)
assert.equal(await sandbox.commands.kill(long.pid), false)
console.log('  JavaScript: commands, stdin, list, kill')

const output = []
const pty = await sandbox.pty.create({ cols: 100, rows: 30, onData: (data) => output.push(data), timeoutMs: 0 })
await sandbox.pty.resize(pty.pid, { cols: 120, rows: 40 })
await sandbox.pty.sendInput(pty.pid, new TextEncoder().encode('stty size; exit\n'))
await pty.wait()
assert(Buffer.concat(output).includes('40 120'), Buffer.concat(output).toString())
console.log('  JavaScript: terminal')

const events = []
await sandbox.files.makeDir('/tmp/watched')
const watching = await sandbox.files.watchDir('/tmp/watched', (event) => events.push(event), { timeoutMs: 0 })
await sandbox.files.write('/tmp/watched/one', 'hällo')
await until('changes are told', () => events.some((event) => event.name === 'one' && event.type === 'create'))
await watching.stop()
assert.equal(await sandbox.files.read('/tmp/watched/one'), 'hällo')
const bytes = new Uint8Array(1 << 20).map((_, index) => index * 7)
await sandbox.files.write('/tmp/bytes', bytes.buffer)
assert.deepEqual(new Uint8Array(await sandbox.files.read('/tmp/bytes', { format: 'bytes' })), bytes)
await sandbox.files.write([{ path: '/tmp/many/a', data: 'a' }, { path: '/tmp/many/b', data: 'b' }])
assert.deepEqual((await sandbox.files.list('/tmp/many')).map((entry) => entry.name), ['a', 'b'])
await sandbox.files.rename('/tmp/many/a', '/tmp/many/c')
assert.equal(await sandbox.files.exists('/tmp/many/a'), false)
assert.equal((await sandbox.files.getInfo('/tmp/many/c')).size, 1)
await sandbox.files.remove('/tmp/many')
assert.equal(await sandbox.files.makeDir('/tmp/watched'), false)
await assert.rejects(sandbox.files.read('/tmp/nothing'), FileNotFoundError)
console.log('  JavaScript: files, watch')

const info = await sandbox.getInfo()
assert.deepEqual([info.templateId, info.state, info.metadata], ['base', 'running', { who: 'js' }])
const listed = await Sandbox.list({ query: { metadata: { who: 'js' } } }).nextItems()
assert.deepEqual(listed.map((one) => one.sandboxId), [sandbox.sandboxId])
const again = await Sandbox.connect(sandbox.sandboxId)
assert.equal((await again.commands.run('echo again')).stdout, 'again\n')
assert.equal((await sandbox.getMetrics()).length, 1)
await assert.rejects(sandbox.createSnapshot(), /501/)
await sandbox.setTimeout(3_000)
await until('a sandbox outlives its time', async () => !(await sandbox.isRunning()))
await until('a sandbox that is over is listed', async () => (await Sandbox.list().nextItems()).length === 0)
await assert.rejects(Sandbox.getInfo(sandbox.sandboxId), NotFoundError)
assert.equal(await sandbox.kill(), false)
console.log('  JavaScript: info, list, connect, metrics, a time that ends')
