// A command in the guest: its output as it comes, or a terminal on it.
import { useEffect, useRef, useState } from 'preact/hooks'

import { enc, failureOf, frames, request, socket } from './api'
import { Empty, Trouble } from './parts'
import { fitted } from './terminal'
import type { Vm } from './types'

/** First byte of each message (Kubernetes' remote commands). */
const [STDIN, STDOUT, STDERR, STATUS, RESIZE] = [0, 1, 2, 3, 4] as const

interface Part {
  stream: string
  text: string
}

const words = (command: string) => ['/bin/sh', '-c', command]

export function Exec({ vm }: { vm: Vm }) {
  const [command, setCommand] = useState('')
  const [session, setSession] = useState<{ id: number; command: string } | null>(null)
  const [output, setOutput] = useState<Part[]>([])
  const [outcome, setOutcome] = useState('')
  const [error, setError] = useState<unknown>(null)
  const stop = useRef<AbortController | null>(null)
  const [busy, setBusy] = useState(false)
  useEffect(() => () => stop.current?.abort(), [])
  if (vm.status !== 'running') return <Empty>It does not run: nothing can be run in it.</Empty>

  const run = async (event: Event) => {
    event.preventDefault()
    const cut = new AbortController()
    stop.current = cut
    setSession(null)
    setOutput([])
    setOutcome('')
    setError(null)
    setBusy(true)
    try {
      await stream(
        vm.name,
        command,
        cut.signal,
        (part) => setOutput((output) => [...output, part]),
        setOutcome,
      )
    } catch (error) {
      if (cut.signal.aborted) setOutcome('ended by you')
      else setError(error)
    } finally {
      setBusy(false)
    }
  }
  const open = () => {
    stop.current?.abort()
    setError(null)
    setSession({ id: Date.now(), command: command.trim() || 'exec sh -i' })
  }
  return (
    <section class="fill">
      <form class="bar" onSubmit={run}>
        <input
          class="grow mono"
          aria-label="Command"
          placeholder="a line for /bin/sh"
          autocomplete="off"
          autocapitalize="off"
          spellcheck={false}
          value={command}
          onInput={(event) => setCommand(event.currentTarget.value)}
        />
        {busy ? (
          <button type="button" onClick={() => stop.current?.abort()}>
            End it
          </button>
        ) : (
          <button class="primary" disabled={command.trim() === ''}>
            Run
          </button>
        )}
        <button type="button" onClick={open}>
          In a terminal
        </button>
      </form>
      <Trouble error={error} />
      {session ? (
        <Session key={session.id} vm={vm} command={session.command} />
      ) : (
        <>
          <pre class="log" role="log" aria-label="Output" tabIndex={0}>
            {output.map((part) =>
              part.stream === 'stderr' ? <span class="stderr">{part.text}</span> : part.text,
            )}
          </pre>
          <p class="dim" role="status">
            {busy ? 'running' : outcome}
          </p>
        </>
      )}
    </section>
  )
}

async function stream(
  name: string,
  command: string,
  signal: AbortSignal,
  add: (part: Part) => void,
  end: (text: string) => void,
) {
  const path = `/api/v1/vms/${enc(name)}/exec`
  const response = await request(path, {
    method: 'POST',
    body: { command },
    accept: 'text/event-stream',
    signal,
  })
  if (!response.ok || !response.body) throw await failureOf(response)
  const decoders: Record<string, TextDecoder> = { stdout: new TextDecoder(), stderr: new TextDecoder() }
  for await (const frame of frames(response.body)) {
    const data = JSON.parse(frame.data)
    const decoder = decoders[frame.event]
    if (decoder) {
      const bytes = Uint8Array.from(atob(data.data), (letter) => letter.charCodeAt(0))
      add({ stream: frame.event, text: decoder.decode(bytes, { stream: true }) })
    } else if (frame.event === 'gap') add({ stream: 'stderr', text: `[${data.lost} bytes are lost]\n` })
    else if (frame.event === 'exit') end(exitOf(data))
  }
}

function exitOf(exit: { exit_code?: number; signal?: number; error?: string }): string {
  if (exit.error) return exit.error
  return exit.signal === undefined ? `exit code ${exit.exit_code}` : `ended by signal ${exit.signal}`
}

/** A command with a terminal of its own. */
function Session({ vm, command }: { vm: Vm; command: string }) {
  const place = useRef<HTMLDivElement>(null)
  const [state, setState] = useState('connecting')
  useEffect(() => {
    let opened: WebSocket | undefined
    const send = (channel: number, text: string) => {
      if (opened?.readyState !== WebSocket.OPEN) return
      const bytes = new TextEncoder().encode(text)
      const message = new Uint8Array(bytes.length + 1)
      message[0] = channel
      message.set(bytes, 1)
      opened.send(message)
    }
    const resize = (cols: number, rows: number) => send(RESIZE, JSON.stringify({ Width: cols, Height: rows }))
    const { terminal, dispose } = fitted(place.current!, `Terminal in ${vm.name}`, resize)
    const asked = new URLSearchParams({
      stdin: 'true',
      tty: 'true',
      cols: String(terminal.cols),
      rows: String(terminal.rows),
    })
    for (const word of words(command)) asked.append('command', word)
    asked.append('env', 'TERM=xterm-256color')
    opened = socket(`/api/v1/vms/${enc(vm.name)}/exec?${asked}`, 'v5.channel.k8s.io')
    terminal.onData((data) => send(STDIN, data))
    opened.onopen = () => {
      setState('open')
      terminal.focus()
    }
    opened.onmessage = ({ data }) => {
      const bytes = new Uint8Array(data as ArrayBuffer)
      if (bytes[0] === STDOUT || bytes[0] === STDERR) terminal.write(bytes.subarray(1))
      else if (bytes[0] === STATUS) setState(statusOf(new TextDecoder().decode(bytes.subarray(1))))
    }
    opened.onclose = () =>
      setState((state) => (state === 'open' || state === 'connecting' ? 'the connection is closed' : state))
    return () => {
      if (opened) opened.onclose = null
      opened?.close()
      dispose()
    }
  }, [])
  return (
    <>
      <div class="screen" ref={place} />
      <p class="dim" role="status">
        {state}
      </p>
    </>
  )
}

function statusOf(text: string): string {
  const status = JSON.parse(text)
  if (status.status === 'Success') return 'exit code 0'
  return status.details?.causes?.[0]?.message
    ? `exit code ${status.details.causes[0].message}`
    : status.message
}
