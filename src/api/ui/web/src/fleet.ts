// What is known of the VMs, kept up to date by the daemon's events; and the meters of those that run.
import { signal } from '@preact/signals'

import { enc, Failure, failureOf, frames, json, request, token } from './api'
import type { Happened, Metrics, Vm } from './types'

/** Events that are kept for the page of events. */
const EVENTS_MAX = 500
/** Between two looks at the VMs where events are not to be had, and between two tries to reach the daemon. */
const AGAIN_MS = 4000
/** Between two looks at a meter. */
const METER_MS = 2000
/** Between two looks whether the token still opens something: a stream that is open tells nothing of it. */
const TOKEN_MS = 10_000
/** Samples of a meter that are kept: five minutes. */
const SAMPLES_MAX = 150
/** Meters that are asked at once. */
const AT_ONCE = 4

export const vms = signal<Vm[] | null>(null)
export const events = signal<Happened[]>([])
/** Whether what is shown is up to date. */
export const link = signal<'connecting' | 'live' | 'polling' | 'lost'>('connecting')

/** One look at a meter: seconds since the epoch, shares and rates since the look before. */
export interface Sample {
  at: number
  cpu: number
  memory: number
  received: number
  sent: number
  metrics: Metrics
}
export const meters = signal<Record<string, Sample[]>>({})
/** What each guest has told last. */
const latest = new Map<string, Metrics>()

export async function refresh() {
  const seen = await json<Vm[]>('/api/v1/vms?sort=name')
  if (token.value !== null) vms.value = seen
}

const pause = (ms: number, signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true })
  })

/** Follows the fleet until `signal` says to stop. */
export async function follow(signal: AbortSignal) {
  vms.value = null
  events.value = []
  meters.value = {}
  latest.clear()
  let last = ''
  void measure(signal)
  void showToken(signal)
  while (!signal.aborted) {
    try {
      last = await listen(last, signal)
      link.value = 'lost'
    } catch (error) {
      if (signal.aborted) return
      const refused = error instanceof Failure && error.status === 403
      if (refused) await refresh().catch(() => {})
      link.value = refused ? 'polling' : 'lost'
    }
    await pause(AGAIN_MS, signal)
  }
}

/** Follows the events after `last`; the id of the last one when the stream ends. */
async function listen(last: string, signal: AbortSignal): Promise<string> {
  if (last === '') last = await recent(signal)
  const headers = { 'last-event-id': last }
  const response = await request('/api/v1/events', { accept: 'text/event-stream', headers, signal })
  if (!response.ok || !response.body) throw await failureOf(response)
  try {
    await refresh()
    link.value = 'live'
    for await (const frame of frames(response.body)) {
      if (frame.event !== 'reset') {
        last = frame.id || last
        remember([JSON.parse(frame.data) as Happened])
      }
      renew()
    }
  } catch (error) {
    response.body.cancel().catch(() => {})
    if (signal.aborted) throw error
  }
  return last
}

/** What has happened before, from the store: the last page of it. */
async function recent(signal: AbortSignal): Promise<string> {
  type Page = { items: Happened[]; last_id: number }
  let since = 0
  for (;;) {
    const page = await json<Page>(`/api/v1/events/history?since=${since}&limit=256`, { signal })
    remember(page.items)
    since = page.last_id
    if (page.items.length < 256) return String(since)
  }
}

function remember(items: Happened[]) {
  const known = events.value.at(-1)?.id ?? 0
  const fresh = items.filter((event) => known < event.id)
  if (fresh.length > 0) events.value = [...events.value, ...fresh].slice(-EVENTS_MAX)
}

let due: ReturnType<typeof setTimeout> | undefined
/** Several events at once ask for the list once. */
function renew() {
  due ??= setTimeout(() => {
    due = undefined
    refresh().catch(() => {})
  }, 150)
}

async function showToken(signal: AbortSignal) {
  while (!signal.aborted) {
    await pause(TOKEN_MS, signal)
    if (!signal.aborted && !document.hidden) await request('/api/v1/vms?limit=1', { signal }).catch(() => {})
  }
}

async function measure(signal: AbortSignal) {
  while (!signal.aborted) {
    if (!document.hidden) {
      const names = (vms.value ?? []).filter(meterable).map((vm) => vm.name)
      const kept = Object.entries(meters.value).filter(([name]) => names.includes(name))
      if (kept.length !== Object.keys(meters.value).length) meters.value = Object.fromEntries(kept)
      for (const name of latest.keys()) if (!names.includes(name)) latest.delete(name)
      const queue = [...names]
      const worker = async () => {
        for (let name = queue.shift(); name !== undefined && !signal.aborted; name = queue.shift())
          await look(name, signal)
      }
      await Promise.all(Array.from({ length: AT_ONCE }, worker))
    }
    await pause(METER_MS, signal)
  }
}

const meterable = (vm: Vm) => vm.status === 'running' && vm.boot_from !== 'disk-without-agent'

async function look(name: string, signal: AbortSignal) {
  let metrics: Metrics
  try {
    metrics = await json<Metrics>(`/api/v1/vms/${enc(name)}/guest/metrics`, { signal })
  } catch {
    // A guest that does not answer now has no sample of now.
    return
  }
  const before = latest.get(name)
  latest.set(name, metrics)
  const sample = before && sampleOf(metrics, before)
  const kept = sample ? [...(meters.value[name] ?? []), sample] : []
  meters.value = { ...meters.value, [name]: kept.slice(-SAMPLES_MAX) }
}

/** The kernel's counters as rates; null if they are those of another boot. */
export function sampleOf(now: Metrics, before: Metrics): Sample | null {
  const at = Date.parse(now.time) / 1000
  const seconds = at - Date.parse(before.time) / 1000
  const busy = now.cpu_busy_us - before.cpu_busy_us
  const idle = now.cpu_idle_us - before.cpu_idle_us
  if (seconds <= 0 || busy < 0 || idle < 0) return null
  return {
    at,
    cpu: busy + idle === 0 ? 0 : (100 * busy) / (busy + idle),
    memory: now.memory_total - now.memory_available,
    received: Math.max(0, now.net_received - before.net_received) / seconds,
    sent: Math.max(0, now.net_sent - before.net_sent) / seconds,
    metrics: now,
  }
}
