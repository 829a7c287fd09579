// A new VM: the request's own JSON Schema is the form, with what is there to choose from.
import { useState } from 'preact/hooks'

import { enc, json } from './api'
import { refresh } from './fleet'
import { Empty, tell, Trouble, useDeed, useLoad } from './parts'
import { go, query } from './route'
import { Fields, useTyped } from './schema-form'
import type { Image, Plugin, Schema, Vm } from './types'

interface Document {
  components: { schemas: Record<string, Schema> }
}

/** What a VM is made of. */
const SOURCES = {
  plugin: ['plugin', 'plugin_version'],
  image: ['image', 'command', 'ephemeral', 'overlay_mb'],
  plain: [],
} as const
type Source = keyof typeof SOURCES
const TITLES: Record<Source, string> = {
  plugin: 'a plugin',
  image: 'an image',
  plain: 'the kernel and agent alone',
}

/** Shown at once; the rest of the schema is behind "More". */
const COMMON = ['name', 'cpu_cores', 'memory_mb', 'env', 'labels', 'start']

async function load() {
  const [document, plugins, images] = await Promise.all([
    json<Document>('/openapi.json'),
    json<{ items: Plugin[] }>('/api/v1/plugins').then(({ items }) =>
      items.filter((plugin) => plugin.enabled),
    ),
    json<Image[]>('/api/v1/images'),
  ])
  return { definitions: document.components.schemas, plugins, images }
}

export function Create() {
  const { value, error } = useLoad('create', load)
  if (error) return <Trouble error={error} />
  if (!value) return <Empty>Loading.</Empty>
  return <Form {...value} />
}

function first(plugins: Plugin[], images: Image[]): Source {
  if (query.value.has('image')) return 'image'
  if (query.value.has('plugin') || plugins.length > 0) return 'plugin'
  return images.length > 0 ? 'image' : 'plain'
}

function Form({
  definitions,
  plugins,
  images,
}: {
  definitions: Record<string, Schema>
  plugins: Plugin[]
  images: Image[]
}) {
  const [source, setSource] = useState<Source>(first(plugins, images))
  const asked = { plugin: query.value.get('plugin') ?? '', image: query.value.get('image') ?? '' }
  const form = useTyped(definitions.CreateVm!, definitions, asked)
  const [busy, run] = useDeed()
  const [error, setError] = useState<unknown>(null)
  const special: string[] = Object.values(SOURCES).flat()
  const rest = Object.keys(definitions.CreateVm!.properties!).filter(
    (name) => !COMMON.includes(name) && !special.includes(name),
  )
  const choices = {
    plugin: plugins.map((plugin) => plugin.name),
    image: images.map((image) => image.reference),
  }
  const submit = (event: Event) => {
    event.preventDefault()
    setError(null)
    const values = form.done()
    if (!values) return setError(new Error('Some fields are not right.'))
    if (source !== 'plain' && !values[source]) return setError(new Error(`Choose ${TITLES[source]}.`))
    const others = Object.entries(SOURCES).flatMap(([name, fields]) => (name === source ? [] : [...fields]))
    const body = Object.fromEntries(
      Object.entries(values).filter(([name]) => !(others as string[]).includes(name)),
    )
    void run(async () => {
      try {
        const vm = await json<Vm>('/api/v1/vms', { method: 'POST', body })
        await refresh()
        tell(`${vm.name} is created.`)
        go(`/vms/${enc(vm.name)}`)
      } catch (error) {
        setError(error)
      }
    })
  }
  return (
    <form class="page" onSubmit={submit} noValidate>
      <h1>Create a VM</h1>
      <fieldset class="choice">
        <legend>Made of</legend>
        {(Object.keys(SOURCES) as Source[]).map((name) => (
          <label>
            <input type="radio" name="source" checked={source === name} onChange={() => setSource(name)} />{' '}
            {TITLES[name]}
          </label>
        ))}
      </fieldset>
      {source === 'plugin' && plugins.length === 0 && <Empty>No plugin is installed and enabled.</Empty>}
      {source === 'image' && images.length === 0 && <Empty>There are no images. Pull one first.</Empty>}
      <Fields form={form} names={['name', ...SOURCES[source]]} choices={choices} />
      <Fields form={form} names={COMMON.slice(1)} />
      <details>
        <summary>More settings</summary>
        <Fields form={form} names={rest} />
      </details>
      <Trouble error={error} />
      <div class="row">
        <button class="primary" disabled={busy}>
          Create
        </button>
        <a class="button" href="#/">
          Cancel
        </a>
      </div>
    </form>
  )
}
