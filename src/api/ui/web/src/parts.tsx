// Small pieces that several pages use.
import { signal } from '@preact/signals'
import type { ComponentChildren } from 'preact'
import { useEffect, useId, useLayoutEffect, useRef, useState } from 'preact/hooks'

import { Failure } from './api'

// --- What went wrong -----------------------------------------------------------------------------

/** What the last deed came to, told at the foot of the page. */
export const notice = signal<{ text: string; bad: boolean } | null>(null)

export const tell = (text: string) => (notice.value = { text, bad: false })

export function complain(error: unknown) {
  if (error instanceof Failure && error.status === 401) return
  const hint = error instanceof Failure && error.hint ? ` ${error.hint}` : ''
  notice.value = { text: `${error instanceof Error ? error.message : String(error)}${hint}`, bad: true }
}

/** Runs a deed, one at a time, and tells what went wrong. */
export function useDeed(): [boolean, (deed: () => Promise<unknown>) => Promise<void>] {
  const [busy, setBusy] = useState(false)
  const run = async (deed: () => Promise<unknown>) => {
    setBusy(true)
    try {
      await deed()
    } catch (error) {
      complain(error)
    } finally {
      setBusy(false)
    }
  }
  return [busy, run]
}

export function Notice() {
  const now = notice.value
  useEffect(() => {
    if (!now || now.bad) return
    const timer = setTimeout(() => notice.value === now && (notice.value = null), 5000)
    return () => clearTimeout(timer)
  }, [now])
  return (
    <div class="notices" aria-live={now?.bad ? 'assertive' : 'polite'}>
      {now && (
        <div class={now.bad ? 'notice bad' : 'notice'}>
          <span>{now.text}</span>
          <button class="quiet" onClick={() => (notice.value = null)} aria-label="Dismiss">
            ✕
          </button>
        </div>
      )}
    </div>
  )
}

export function Trouble({ error }: { error: unknown }) {
  if (!error) return null
  const failure = error instanceof Failure ? error : null
  // A pointer to the whole document says nothing.
  const fields = failure?.fields.filter((field) => field.pointer !== '') ?? []
  return (
    <div class="trouble" role="alert">
      <p>
        {error instanceof Error ? error.message : String(error)}
        {failure?.hint && <span class="dim"> {failure.hint}</span>}
      </p>
      {fields.length > 0 && (
        <ul>
          {fields.map((field) => (
            <li>
              <code>{field.pointer}</code> {field.detail}
            </li>
          ))}
        </ul>
      )}
    </div>
  )
}

// --- Asking before what cannot be undone ---------------------------------------------------------

interface Question {
  title: string
  text: string
  verb: string
  deed: () => Promise<unknown>
}
const question = signal<Question | null>(null)

export const confirm = (asked: Question) => (question.value = asked)

export function Confirm() {
  const asked = question.value
  const dialog = useRef<HTMLDialogElement>(null)
  const [busy, run] = useDeed()
  useLayoutEffect(() => {
    if (asked) dialog.current?.showModal()
  }, [asked])
  if (!asked) return null
  const close = () => (question.value = null)
  // The browser tells of a closing later, when the next question may be shown already.
  const closed = () => dialog.current?.open || close()
  return (
    <dialog ref={dialog} onClose={closed} aria-labelledby="question">
      <h2 id="question">{asked.title}</h2>
      <p>{asked.text}</p>
      <div class="row end">
        <button onClick={close}>Cancel</button>
        <button class="danger" disabled={busy} onClick={() => run(asked.deed).then(close)}>
          {asked.verb}
        </button>
      </div>
    </dialog>
  )
}

// --- Forms of things -----------------------------------------------------------------------------

export function State({ status, note }: { status: string; note?: string | undefined }) {
  return (
    <span class={`state ${status}`} title={note}>
      {status}
    </span>
  )
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>
}

/** What ties an input to its label and to what is told of it. */
export interface Tied {
  id: string
  'aria-describedby': string
}

interface FieldProps {
  label: string
  help?: string
  error?: string | undefined
  children: (tied: Tied) => ComponentChildren
}

export function Field({ label, help, error, children }: FieldProps) {
  const id = useId()
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({ id, 'aria-describedby': `${id}-help` })}
      <span id={`${id}-help`}>
        {help && <span class="help">{prose(help)}</span>}
        {error && <span class="wrong">{error}</span>}
      </span>
    </div>
  )
}

/** A sentence with names in backticks. */
const prose = (text: string) => text.split('`').map((part, at) => (at % 2 === 1 ? <code>{part}</code> : part))

/** A small line of numbers from 0 to `top`. */
export function Spark({ values, top }: { values: number[]; top: number }) {
  const [width, height] = [64, 16]
  const shown = values.slice(-32)
  const step = width / 31
  const from = width - (shown.length - 1) * step
  const points = shown.map((value, at) => {
    const y = height - 1 - (Math.min(value, top) / (top || 1)) * (height - 2)
    return `${(from + at * step).toFixed(1)},${y.toFixed(1)}`
  })
  return (
    <svg class="spark" width={width} height={height} aria-hidden="true">
      <line x1="0" x2={width} y1={height - 1} y2={height - 1} />
      <polyline points={points.join(' ')} />
    </svg>
  )
}

// --- Numbers and times ---------------------------------------------------------------------------

export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  while (1024 <= count && unit < units.length - 1) {
    count /= 1024
    unit += 1
  }
  return `${count < 10 && unit > 0 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`
}

/** How long ago, in two letters' width. */
export function age(time: string, now: number): string {
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000))
  if (seconds < 60) return `${seconds}s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}h`
  return `${Math.floor(seconds / 86400)}d`
}

export function moment(time: string): string {
  const date = new Date(time)
  const two = (number: number) => String(number).padStart(2, '0')
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
}

/** Now, every `ms` anew. */
export function useNow(ms = 5000): number {
  const [now, setNow] = useState(Date.now())
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), ms)
    return () => clearInterval(timer)
  }, [ms])
  return now
}

/** Loads once and whenever `key` changes. */
export function useLoad<T>(
  key: string,
  load: () => Promise<T>,
): { value: T | undefined; error: unknown; again: () => void } {
  const [state, setState] = useState<{ value?: T; error?: unknown }>({})
  const [count, setCount] = useState(0)
  useEffect(() => {
    let wanted = true
    load().then(
      (value) => wanted && setState({ value }),
      (error) => wanted && setState({ error }),
    )
    return () => {
      wanted = false
    }
  }, [key, count])
  return { value: state.value, error: state.error, again: () => setCount((count) => count + 1) }
}
