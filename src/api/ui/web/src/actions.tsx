// Actions of a plugin: a form from the schema of what each takes, else a field for JSON.
import { useEffect, useRef, useState } from 'preact/hooks'

import { enc, json, request, texts } from './api'
import { Empty, Trouble, useLoad } from './parts'
import { Fields, useTyped } from './schema-form'
import type { Action, Schema, Vm } from './types'

/** Characters of an answer that are shown. */
const ANSWER_LEN_MAX = 200_000

export interface Manifest {
  name: string
  version: string
  runtime?: string
  actions?: Record<string, Action>
}

export const manifestOf = (name: string, version?: string) =>
  json<Manifest>(`/api/v1/plugins/${enc(name)}${version ? `?version=${enc(version)}` : ''}`)

export function VmActions({ vm }: { vm: Vm }) {
  const { value, error } = useLoad(`${vm.plugin} ${vm.plugin_version}`, () =>
    manifestOf(vm.plugin!, vm.plugin_version),
  )
  if (error) return <Trouble error={error} />
  if (!value) return <Empty>Loading.</Empty>
  return <Actions manifest={value} path={`/api/v1/vms/${enc(vm.name)}/actions/${enc(value.name)}`} />
}

export function Actions({ manifest, path }: { manifest: Manifest; path: string }) {
  const actions = Object.entries(manifest.actions ?? {})
  if (actions.length === 0) return <Empty>This plugin has no actions.</Empty>
  return (
    <div class="actions">
      {actions.map(([name, action]) => (
        <ActionForm key={name} name={name} action={action} path={`${path}/${enc(name)}`} />
      ))}
    </div>
  )
}

/** An action that tells no schema takes any document, or none. */
const ANY: Schema = {
  type: 'object',
  properties: { payload: { description: 'Whatever the action takes; may be empty.' } },
}

interface Answer {
  vm: string
  status: number
  kind: string
  text: string
}

function ActionForm({ name, action, path }: { name: string; action: Action; path: string }) {
  const typed = action.input?.properties ? action.input : undefined
  const form = useTyped(typed ?? ANY, action.input as Record<string, Schema> | undefined)
  const [answer, setAnswer] = useState<Answer | null>(null)
  const [error, setError] = useState<unknown>(null)
  const cut = useRef<AbortController | null>(null)
  const [busy, setBusy] = useState(false)
  useEffect(() => () => cut.current?.abort(), [])
  const takesBody = !['GET', 'HEAD', 'DELETE'].includes(action.method.toUpperCase()) || typed !== undefined
  const call = async (event: Event) => {
    event.preventDefault()
    const values = form.done()
    if (!values) return
    setAnswer(null)
    setError(null)
    setBusy(true)
    const stop = new AbortController()
    cut.current = stop
    try {
      const body = typed ? values : values.payload
      await ask(path, takesBody ? body : undefined, stop.signal, setAnswer)
    } catch (error) {
      if (!stop.signal.aborted) setError(error)
    } finally {
      setBusy(false)
    }
  }
  return (
    <form class="card" onSubmit={call} noValidate>
      <h2>
        {name}{' '}
        <span class="dim mono">
          {action.method} {action.path}
        </span>
      </h2>
      {action.description && <p>{action.description}</p>}
      {takesBody && <Fields form={form} names={Object.keys((typed ?? ANY).properties!)} />}
      <div class="row">
        <button class="primary" disabled={busy} aria-label={`Call ${name}`}>
          Call
        </button>
        {busy && (
          <button type="button" onClick={() => cut.current?.abort()}>
            End it
          </button>
        )}
      </div>
      <Trouble error={error} />
      {answer && (
        <div role="status">
          <p class="dim">
            {answer.status} {answer.vm && `from ${answer.vm}`} {answer.kind}
          </p>
          <pre class="log answer">{pretty(answer)}</pre>
        </div>
      )}
    </form>
  )
}

async function ask(path: string, body: unknown, signal: AbortSignal, show: (answer: Answer) => void) {
  const response = await request(path, { method: 'POST', body, signal })
  const kind = response.headers.get('content-type') ?? ''
  const answer = { vm: response.headers.get('x-volant-vm') ?? '', status: response.status, kind, text: '' }
  show(answer)
  if (!response.body) return
  for await (const text of texts(response.body)) {
    answer.text = (answer.text + text).slice(0, ANSWER_LEN_MAX)
    show({ ...answer })
  }
}

function pretty({ kind, text }: Answer): string {
  if (!kind.includes('json')) return text
  try {
    return JSON.stringify(JSON.parse(text), null, 2)
  } catch {
    return text
  }
}
