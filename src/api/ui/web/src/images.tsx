// Images: which are here, pulling one, removing what nobody runs.
import { useState } from 'preact/hooks'

import { enc, failureOf, frames, json, request } from './api'
import { bytes, confirm, Empty, moment, tell, Trouble, useDeed, useLoad } from './parts'
import type { Image } from './types'

export function Images() {
  const { value, error, again } = useLoad('images', () => json<Image[]>('/api/v1/images'))
  if (error) return <Trouble error={error} />
  if (!value) return <Empty>Loading.</Empty>
  return (
    <>
      <div class="bar">
        <h1>Images</h1>
        <span class="dim">{value.length}</span>
        <span class="gap" />
        <Pull again={again} />
        <Prune again={again} />
      </div>
      {value.length === 0 ? (
        <Empty>There are none yet.</Empty>
      ) : (
        <table class="cards">
          <thead>
            <tr>
              <th>Reference</th>
              <th>Id</th>
              <th class="num">Root</th>
              <th class="num">Layers</th>
              <th>Here since</th>
              <th>
                <span class="hidden">Deeds</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {value.map((image) => (
              <Row key={image.reference} image={image} again={again} />
            ))}
          </tbody>
        </table>
      )}
    </>
  )
}

function Row({ image, again }: { image: Image; again: () => void }) {
  const remove = () =>
    confirm({
      title: `Remove ${image.reference}?`,
      text: 'VMs that are made of it keep what they need.',
      verb: 'Remove',
      deed: async () => {
        await json(`/api/v1/images/${image.reference.split('/').map(enc).join('/')}`, { method: 'DELETE' })
        again()
      },
    })
  return (
    <tr>
      <th scope="row">{image.reference}</th>
      <td data-label="Id" title={image.id}>
        <code>{image.id.replace('sha256:', '').slice(0, 12)}</code>
      </td>
      <td data-label="Root" class="num">
        {bytes(image.root_bytes)}
      </td>
      <td data-label="Layers" class="num">
        {bytes(image.layer_bytes)}
      </td>
      <td data-label="Here since">{moment(image.created_at)}</td>
      <td class="deeds">
        <a
          class="button"
          href={`#/create?image=${enc(image.reference)}`}
          aria-label={`Create VM of ${image.reference}`}
        >
          Create VM
        </a>
        <button class="danger-quiet" onClick={remove} aria-label={`Remove ${image.reference}`}>
          Remove
        </button>
      </td>
    </tr>
  )
}

interface Progress {
  phase: string
  bytes_done: number
  bytes_total: number
}

function Pull({ again }: { again: () => void }) {
  const [reference, setReference] = useState('')
  const [progress, setProgress] = useState<Progress | null>(null)
  const [busy, run] = useDeed()
  const pull = (event: Event) => {
    event.preventDefault()
    void run(async () => {
      try {
        const body = { reference: reference.trim() }
        const response = await request('/api/v1/images/pull', {
          method: 'POST',
          body,
          accept: 'text/event-stream',
        })
        if (!response.ok || !response.body) throw await failureOf(response)
        for await (const frame of frames(response.body)) {
          const data = JSON.parse(frame.data)
          if (frame.event === 'progress') setProgress(data)
          else if (frame.event === 'error') throw new Error(data.detail)
        }
        tell(`${reference} is here.`)
        setReference('')
        again()
      } finally {
        setProgress(null)
      }
    })
  }
  return (
    <form class="row" onSubmit={pull}>
      {progress && (
        <span role="status" class="dim">
          {progress.phase} {bytes(progress.bytes_done)}
          {progress.bytes_total > 0 && ` of ${bytes(progress.bytes_total)}`}
        </span>
      )}
      <input
        aria-label="Reference to pull"
        placeholder="registry.example/name:tag"
        value={reference}
        onInput={(event) => setReference(event.currentTarget.value)}
      />
      <button disabled={busy || reference.trim() === ''}>Pull</button>
    </form>
  )
}

function Prune({ again }: { again: () => void }) {
  const [busy, run] = useDeed()
  type Pruned = { kind: string; name: string; bytes: number }[]
  const prune = (dry_run: boolean) =>
    json<Pruned>('/api/v1/images/prune', { method: 'POST', body: { dry_run } })
  const ask = () =>
    run(async () => {
      const would = await prune(true)
      if (would.length === 0) return tell('Nothing is kept that nobody needs.')
      const total = would.reduce((sum, item) => sum + item.bytes, 0)
      confirm({
        title: 'Remove what nobody needs?',
        text: `${would.length} things, ${bytes(total)}: ${would.map((item) => `${item.kind} ${item.name}`).join(', ')}`,
        verb: 'Remove',
        deed: async () => {
          const gone = await prune(false)
          tell(`${gone.length} things are gone.`)
          again()
        },
      })
    })
  return (
    <button disabled={busy} onClick={ask}>
      Prune
    </button>
  )
}
