// AG-UI's own client against a running daemon. VOLANT_URL and VOLANT_TOKEN name it, VOLANT_FRAMES a
// file for every event as it came, to be held against the schema; tests/devvm/clients.sh sets them.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import { HttpAgent } from '@ag-ui/client'

const base = process.env.VOLANT_URL
const authorization = `Bearer ${process.env.VOLANT_TOKEN}`
const warnings = []
console.warn = (...words) => warnings.push(words.join(' '))
console.error = (...words) => warnings.push(words.join(' '))

const rest = async (path, init = {}) => {
  const answer = await fetch(base + path, { ...init, headers: { authorization } })
  return answer.status === 204 || answer.status === 202 ? null : answer.json()
}
const fleet = async () => Object.fromEntries((await rest('/api/v1/vms')).map((vm) => [String(vm.id), vm]))

// Frames as they are on the wire, before the client drops what it does not know.
const plain = globalThis.fetch
globalThis.fetch = async (input, init) => {
  const answer = await plain(input, init)
  if (!String(input.url ?? input).includes('/agui') || !answer.body || !answer.ok) return answer
  const [mine, theirs] = answer.body.tee()
  ;(async () => {
    let text = ''
    const decoder = new TextDecoder()
    try {
      for await (const bytes of mine) text += decoder.decode(bytes, { stream: true })
    } catch {
      // The test has hung up.
    }
    for (const frame of text.split('\n\n')) {
      const data = frame.split('\n').find((line) => line.startsWith('data: '))
      if (data) fs.appendFileSync(process.env.VOLANT_FRAMES, data.slice(6) + '\n')
    }
  })()
  return new Response(theirs, answer)
}

let runs = 0
const agent = (threadId, path = '/api/v1/agui') =>
  new HttpAgent({ url: base + path, headers: { authorization }, threadId, initialState: {} })

async function run(agent, { op, args, say, confirm, detach, resume, abortOn }) {
  const seen = []
  const runId = `run-${++runs}-${process.pid}`
  if (say) agent.setMessages([{ id: `u${runs}`, role: 'user', content: say }])
  const forwardedProps = op ? { volant: { op, args, confirm, detach } } : {}
  const result = await agent.runAgent({ runId, forwardedProps, tools: [], context: [], resume }, {
    onEvent: ({ event }) => {
      seen.push(event)
      if (abortOn?.(event)) agent.abortRun()
    },
  })
  return { runId, seen, result: result?.result, last: seen.at(-1), of: (type) => seen.filter((e) => e.type === type) }
}
const ok = (run) => {
  assert.equal(run.last?.type, 'RUN_FINISHED', JSON.stringify(run.last))
  assert.equal(run.last.outcome?.type, 'success', JSON.stringify(run.last))
}

// A run that creates a VM.
const first = agent('t-life')
let made = await run(first, { op: 'vm_create', args: { name: 'agui', memory_mb: 96, wait: true } })
ok(made)
assert.equal(made.last.result.status, 'running')
assert.ok(made.of('STEP_STARTED').some((e) => e.stepName === 'vm_create:running'), 'steps')
assert.ok(made.of('CUSTOM').some((e) => e.value.type === 'VM_RUNNING'), 'lifecycle')
assert.deepEqual(first.state.vms, await fleet(), 'the state is not what REST shows')
console.log(`  create: ${made.seen.length} events, state equals REST`)

// One that runs a command, in words.
const shell = agent('t-exec', '/api/v1/vms/agui/agui')
let ran = await run(shell, { say: "vms exec agui -- sh -c 'echo out; echo err >&2; exit 3'" })
ok(ran)
assert.deepEqual([ran.last.result.exit_code, ran.last.result.stdout, ran.last.result.stderr], [3, 'out\n', 'err\n'])
const activity = shell.messages.find((message) => message.role === 'activity')
assert.equal(activity.content.exitCode, 3, JSON.stringify(activity))
assert.deepEqual(activity.content.chunks.map((c) => c.d).sort(), ['err\n', 'out\n'])
ran = await run(shell, { op: 'vm_get', args: { name: 'other' } })
assert.deepEqual([ran.last.type, ran.last.code], ['RUN_ERROR', 'out_of_scope'])
console.log('  exec: output as an activity; one VM\'s agent is confined to it')

// One without a command explains itself; one that fails says why.
ok(await run(agent('t-help'), { say: 'hello, what can you do?' }))
const failed = await run(agent('t-fail'), { op: 'vm_get', args: { name: 'nobody' } })
assert.deepEqual([failed.last.type, failed.last.code], ['RUN_ERROR', 'vm_not_found'])

// One that is cancelled from elsewhere, and one by hanging up: the command ends in the guest.
const busy = agent('t-cancel')
const cancelled = await run(busy, {
  op: 'vm_exec',
  args: { name: 'agui', command: 'echo begun; sleep 7777' },
  abortOn: (event) => {
    if (event.type === 'ACTIVITY_DELTA') rest(`/api/v1/agui/runs/run-${runs}-${process.pid}/cancel`, { method: 'POST' })
  },
})
assert.equal(cancelled.last.outcome?.type, 'cancelled', JSON.stringify(cancelled.last))
const left = await run(agent('t-hangup'), {
  op: 'vm_exec',
  args: { name: 'agui', command: 'echo begun; sleep 7777' },
  abortOn: (event) => event.type === 'ACTIVITY_DELTA',
}).catch((error) => error)
for (let tries = 0; ; tries++) {
  const seen = await run(agent(`t-look-${tries}`), { op: 'vm_exec', args: { name: 'agui', command: 'pidof sleep' } })
  if (seen.last.result.exit_code !== 0) break
  assert.ok(tries < 50, 'the command of a run that is gone still runs')
}
console.log('  cancel and hang-up: the command is gone from the guest')

// The events of a run can be had again, all or from one on.
const replay = async (from) => {
  const answer = await plain(`${base}/api/v1/agui/runs/${made.runId}/events`, {
    headers: { authorization, ...(from ? { 'last-event-id': String(from) } : {}) },
  })
  return (await answer.text()).split('\n\n').filter((frame) => frame.includes('data: ')).length
}
assert.equal(await replay(), made.seen.length)
assert.equal(await replay(3), made.seen.length - 3)

// One that is interrupted: declined, then asked again, approved; the answer a second time is safe.
const careful = agent('t-delete')
let asked = await run(careful, { op: 'vm_delete', args: { name: 'agui' } })
assert.equal(asked.last.outcome?.type, 'interrupt', JSON.stringify(asked.last))
assert.ok((await fleet()) && Object.values(await fleet()).some((vm) => vm.name === 'agui'), 'deleted unasked')
let [question] = asked.last.outcome.interrupts
const answer = (payload, status = 'resolved') => [{ interruptId: question.id, status, payload }]
const declined = await run(careful, { resume: answer({ approved: false }) })
ok(declined)
assert.deepEqual(declined.last.result, { declined: true })
asked = await run(careful, { op: 'vm_delete', args: { name: 'agui' } })
;[question] = asked.last.outcome.interrupts
const pending = await plain(`${base}/api/v1/agui`, {
  method: 'POST',
  headers: { authorization, 'content-type': 'application/json', accept: 'text/event-stream' },
  body: JSON.stringify({ threadId: 't-delete', runId: `x-${process.pid}`, messages: [], forwardedProps: { volant: { op: 'vm_list' } } }),
})
assert.match(await pending.text(), /interrupt_pending/)
const done = await run(careful, { resume: answer({ approved: true }) })
ok(done)
const results = done.of('TOOL_CALL_RESULT')
assert.deepEqual([results.length, results[0].toolCallId], [1, question.toolCallId])
assert.deepEqual(careful.state.vms, await fleet())
assert.deepEqual(careful.state.vms, {})
console.log('  interrupt: declined, approved, state equals REST')

// A plugin's own agent, in the guest: the run is relayed to it, and its frames come back as they are.
const AGENT = String.raw`#!/bin/sh
body=$(head -c "$CONTENT_LENGTH")
word() { printf %s "$body" | sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }
ids="\"threadId\":\"$(word threadId)\",\"runId\":\"$(word runId)\""
printf 'Content-Type: text/event-stream\r\n\r\n'
say() { printf 'data: %s\n\n' "$1"; }
say "{\"type\":\"RUN_STARTED\",$ids}"
say '{"type":"TEXT_MESSAGE_START","messageId":"m1","role":"assistant"}'
say '{"type":"TEXT_MESSAGE_CONTENT","messageId":"m1","delta":"from the guest"}'
say '{"type":"TEXT_MESSAGE_END","messageId":"m1"}'
say "{\"type\":\"RUN_FINISHED\",$ids}"
`
const make = (path, body) => plain(base + path, {
  method: 'POST',
  headers: { authorization, 'content-type': 'application/json' },
  body: JSON.stringify(body),
})
const installed = await make('/api/v1/plugins', {
  schema_version: '1', name: 'agui-agent', version: '1.0.0', initramfs: { url: 'builtin:default' },
  resources: { cpu_cores: 1, memory_mb: 96 },
  env: { AGENT },
  workload: {
    type: 'http', base_url: 'http://127.0.0.1:8080',
    entrypoint: ['/bin/sh', '-c', 'mkdir -p /www/cgi-bin && cd /www && printf %s "$AGENT" >cgi-bin/run && ' +
      'chmod +x cgi-bin/run && echo up >health && exec httpd -f -p 8080 -h /www'],
  },
  health: { http: { path: '/health' }, interval_ms: 1000 },
  actions: { run: { method: 'POST', path: '/cgi-bin/run' } },
  agui: 'run',
})
assert.equal(installed.status, 201, await installed.text())
const vm = await make('/api/v1/vms?wait=true&until=ready', { name: 'talks', plugin: 'agui-agent' })
assert.equal(vm.status, 201, await vm.text())
const relayed = agent('t-guest', '/api/v1/vms/talks/agui')
const told = await run(relayed, { say: 'hello' })
assert.equal(told.last?.type, 'RUN_FINISHED', JSON.stringify(told.seen))
assert.equal(relayed.messages.at(-1).content, 'from the guest')
await rest('/api/v1/vms/talks', { method: 'DELETE' })
await rest('/api/v1/plugins/agui-agent', { method: 'DELETE' })
console.log("  relay: a plugin's own agent answers from the guest")

assert.deepEqual(warnings, [], 'the client warns')
