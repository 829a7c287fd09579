// A VM's log as it comes: its workload's, or what its serial console has shown.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'

import { enc, failureOf, request, texts } from './api'
import { Trouble } from './parts'
import type { Vm } from './types'

const LINES_MAX = 5000
/** Colours and cursor movements (ECMA-48) mean nothing in a list of lines. */
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])/g

/** Lines of a stream of text, the last one still open. */
export function append(lines: string[], text: string): string[] {
  const parts = text.replace(/\r+\n/g, '\n').split('\n')
  const open = lines.at(-1) ?? ''
  return [...lines.slice(0, -1), open + parts[0], ...parts.slice(1)].slice(-LINES_MAX)
}

export function Logs({ vm }: { vm: Vm }) {
  const usual = vm.plugin || vm.image ? 'workload' : 'console'
  const [kind, setKind] = useState(usual)
  const [lines, setLines] = useState<string[]>([''])
  const [filter, setFilter] = useState('')
  const [follows, setFollows] = useState(true)
  const [error, setError] = useState<unknown>(null)
  const [ended, setEnded] = useState(false)
  const box = useRef<HTMLPreElement>(null)
  useEffect(() => {
    const stop = new AbortController()
    setLines([''])
    setError(null)
    setEnded(false)
    read(vm.name, kind, stop.signal, (text) => setLines((lines) => append(lines, text))).then(
      () => setEnded(true),
      (error) => stop.signal.aborted || setError(error),
    )
    return () => stop.abort()
  }, [vm.name, vm.status, kind])
  useLayoutEffect(() => {
    if (follows && box.current) box.current.scrollTop = box.current.scrollHeight
  }, [lines, follows, filter])
  const plain = lines.map((line) => line.replace(ESCAPES, ''))
  const wanted =
    filter === '' ? plain : plain.filter((line) => line.toLowerCase().includes(filter.toLowerCase()))
  return (
    <section class="fill">
      <div class="bar">
        <select aria-label="Source" value={kind} onChange={(event) => setKind(event.currentTarget.value)}>
          <option value="workload">workload</option>
          <option value="console">console</option>
        </select>
        <input
          type="search"
          aria-label="Filter lines"
          placeholder="Filter lines"
          value={filter}
          onInput={(event) => setFilter(event.currentTarget.value)}
        />
        <label class="check">
          <input
            type="checkbox"
            checked={follows}
            onChange={(event) => setFollows(event.currentTarget.checked)}
          />{' '}
          follow
        </label>
        {ended && <span class="dim">The machine has ended.</span>}
      </div>
      <Trouble error={error} />
      <pre
        class="log"
        ref={box}
        tabIndex={0}
        role="log"
        aria-label={`Log of ${vm.name}`}
        onWheel={(event) => event.deltaY < 0 && setFollows(false)}
      >
        {wanted.join('\n')}
      </pre>
    </section>
  )
}

async function read(name: string, kind: string, signal: AbortSignal, add: (text: string) => void) {
  const path = `/api/v1/vms/${enc(name)}/logs?source=${kind}&tail=1000&follow=true`
  const response = await request(path, { signal })
  if (!response.ok || !response.body) throw await failureOf(response)
  for await (const text of texts(response.body)) add(text)
}
