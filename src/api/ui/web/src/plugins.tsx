// Plugins: which there are, switching them on and off, installing one, calling their actions.
import { useState } from 'preact/hooks'

import { enc, json } from './api'
import { Actions, manifestOf } from './actions'
import { confirm, Empty, Field, moment, tell, Trouble, useDeed, useLoad } from './parts'
import { go } from './route'
import type { Plugin } from './types'

const path = (plugin: Plugin) => `/api/v1/plugins/${enc(plugin.name)}`

export function Plugins() {
  const { value, error, again } = useLoad('plugins', () => json<{ items: Plugin[] }>('/api/v1/plugins'))
  if (error) return <Trouble error={error} />
  if (!value) return <Empty>Loading.</Empty>
  return (
    <>
      <div class="bar">
        <h1>Plugins</h1>
        <span class="dim">{value.items.length}</span>
      </div>
      {value.items.length === 0 ? (
        <Empty>None is installed.</Empty>
      ) : (
        <table class="cards">
          <thead>
            <tr>
              <th>Name</th>
              <th>Version</th>
              <th>Runtime</th>
              <th class="num">VMs</th>
              <th>Actions</th>
              <th>Installed</th>
              <th>
                <span class="hidden">Deeds</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {value.items.map((plugin) => (
              <Row key={plugin.name} plugin={plugin} again={again} />
            ))}
          </tbody>
        </table>
      )}
      <Install again={again} />
    </>
  )
}

function Row({ plugin, again }: { plugin: Plugin; again: () => void }) {
  const [busy, run] = useDeed()
  const set = (enabled: boolean) =>
    run(async () => {
      await json(`${path(plugin)}/enabled`, { method: 'POST', body: { enabled } })
      again()
    })
  return (
    <tr>
      <th scope="row">
        <a href={`#/plugins/${enc(plugin.name)}`}>{plugin.name}</a>
      </th>
      <td data-label="Version">
        {plugin.version}
        {plugin.versions.length > 1 && <span class="dim"> of {plugin.versions.length}</span>}
      </td>
      <td data-label="Runtime">{plugin.runtime}</td>
      <td data-label="VMs" class="num">
        {plugin.vms}
      </td>
      <td data-label="Actions">{plugin.actions.join(', ')}</td>
      <td data-label="Installed">{moment(plugin.installed_at)}</td>
      <td class="deeds">
        {plugin.enabled && (
          <a
            class="button"
            href={`#/create?plugin=${enc(plugin.name)}`}
            aria-label={`Create VM of ${plugin.name}`}
          >
            Create VM
          </a>
        )}
        <button
          disabled={busy}
          onClick={() => set(!plugin.enabled)}
          aria-label={`${plugin.enabled ? 'Disable' : 'Enable'} ${plugin.name}`}
        >
          {plugin.enabled ? 'Disable' : 'Enable'}
        </button>
        <button
          class="danger-quiet"
          onClick={() => remove(plugin, again)}
          aria-label={`Remove ${plugin.name}`}
        >
          Remove
        </button>
      </td>
    </tr>
  )
}

function remove(plugin: Plugin, done: () => void) {
  confirm({
    title: `Remove ${plugin.name}?`,
    text: 'All its versions go. It is refused while VMs are made of it.',
    verb: 'Remove',
    deed: async () => {
      await json(path(plugin), { method: 'DELETE' })
      tell(`${plugin.name} is removed.`)
      done()
    },
  })
}

function Install({ again }: { again: () => void }) {
  const [text, setText] = useState('')
  const [error, setError] = useState<unknown>(null)
  const [busy, run] = useDeed()
  const install = (event: Event) => {
    event.preventDefault()
    setError(null)
    void run(async () => {
      try {
        const type = text.trimStart().startsWith('{') ? 'application/json' : 'application/yaml'
        const plugin = await json<Plugin>('/api/v1/plugins', { method: 'POST', raw: { type, text } })
        tell(`${plugin.name} ${plugin.version} is installed.`)
        setText('')
        again()
      } catch (error) {
        setError(error)
      }
    })
  }
  return (
    <details class="page">
      <summary>Install a plugin</summary>
      <form onSubmit={install}>
        <Field label="Manifest" help="YAML or JSON.">
          {(tied) => (
            <textarea
              {...tied}
              rows={14}
              class="mono"
              spellcheck={false}
              value={text}
              onInput={(event) => setText(event.currentTarget.value)}
            />
          )}
        </Field>
        <Trouble error={error} />
        <button class="primary" disabled={busy || text.trim() === ''}>
          Install
        </button>
      </form>
    </details>
  )
}

export function PluginPage({ name }: { name: string }) {
  const { value, error } = useLoad(name, async () => {
    const [manifest, plugin] = await Promise.all([
      manifestOf(name),
      json<Plugin>(`/api/v1/plugins/${enc(name)}/versions`),
    ])
    return { manifest, plugin }
  })
  if (error) return <Trouble error={error} />
  if (!value) return <Empty>Loading.</Empty>
  const { manifest, plugin } = value
  return (
    <>
      <div class="bar">
        <h1>{name}</h1>
        <span class="dim">
          {plugin.version}, {plugin.enabled ? 'enabled' : 'disabled'}, VMs: {plugin.vms}
        </span>
        <span class="gap" />
        {plugin.enabled && (
          <a class="button primary" href={`#/create?plugin=${enc(name)}`}>
            Create VM
          </a>
        )}
        <button class="danger-quiet" onClick={() => remove(plugin, () => go('/plugins'))}>
          Remove
        </button>
      </div>
      <h2>Actions, of the least busy VM</h2>
      <Actions manifest={manifest} path={`/api/v1/plugins/${enc(name)}/actions`} />
      <h2>Manifest</h2>
      <pre class="log answer" tabIndex={0}>
        {JSON.stringify(manifest, null, 2)}
      </pre>
    </>
  )
}
