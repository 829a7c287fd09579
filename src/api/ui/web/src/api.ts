// The daemon's API: requests with the token, server-sent events, WebSockets.
import { signal } from '@preact/signals'

const KEY = 'volantd.token'

/** The token of this tab; null before log in. It is in no address and no cookie. */
export const token = signal<string | null>(sessionStorage.getItem(KEY))
/** Why the log in page is shown again. */
export const farewell = signal('')

export function logIn(value: string) {
  sessionStorage.setItem(KEY, value)
  farewell.value = ''
  token.value = value
}

export function logOut(why: string) {
  sessionStorage.removeItem(KEY)
  farewell.value = why
  token.value = null
}

/** An answer that is a problem (RFC 9457), or a daemon that does not answer. */
export class Failure extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly hint = '',
    readonly fields: { pointer: string; detail: string }[] = [],
  ) {
    super(detail)
  }
}

export async function failureOf(response: Response): Promise<Failure> {
  const text = await response.text()
  try {
    const problem = JSON.parse(text)
    const detail = problem.detail ?? text
    return new Failure(response.status, problem.code ?? '', detail, problem.hint, problem.errors)
  } catch {
    return new Failure(response.status, '', text || `${response.status} ${response.statusText}`)
  }
}

export interface Ask {
  method?: string
  body?: unknown
  raw?: { type: string; text: string }
  accept?: string
  headers?: Record<string, string>
  signal?: AbortSignal
}

/** One request with a token; a token that is refused leads back to log in. */
export async function request(path: string, ask: Ask = {}): Promise<Response> {
  const shown = token.value
  const headers: Record<string, string> = { authorization: `Bearer ${shown}`, ...ask.headers }
  if (ask.accept) headers.accept = ask.accept
  if (ask.body !== undefined) headers['content-type'] = 'application/json'
  if (ask.raw) headers['content-type'] = ask.raw.type
  let response: Response
  try {
    response = await fetch(path, {
      method: ask.method ?? 'GET',
      headers,
      body: ask.raw?.text ?? (ask.body === undefined ? undefined : JSON.stringify(ask.body)),
      signal: ask.signal ?? null,
      cache: 'no-store',
      credentials: 'omit',
    })
  } catch (error) {
    if (ask.signal?.aborted) throw error
    throw new Failure(0, 'unreachable', 'The daemon does not answer.')
  }
  // Of the daemon itself: an answer of a guest names its VM.
  if (response.status === 401 && !response.headers.has('x-volant-vm')) {
    if (token.value === shown) logOut('The token is not valid any more. Log in again.')
    throw new Failure(401, 'unauthorized', 'The token is not valid any more.')
  }
  return response
}

export async function json<T>(path: string, ask: Ask = {}): Promise<T> {
  const response = await request(path, ask)
  if (!response.ok) throw await failureOf(response)
  return response.status === 204 ? (undefined as T) : ((await response.json()) as T)
}

export interface Frame {
  id: string
  event: string
  data: string
}

/** The frames of one answer in server-sent events. */
export async function* frames(body: ReadableStream<Uint8Array>): AsyncGenerator<Frame> {
  let rest = ''
  let frame: Frame = { id: '', event: 'message', data: '' }
  for await (const text of texts(body)) {
    const lines = (rest + text).split(/\r?\n/)
    rest = lines.pop() ?? ''
    for (const line of lines) {
      if (line === '') {
        if (frame.data !== '' || frame.event !== 'message') yield frame
        frame = { id: frame.id, event: 'message', data: '' }
        continue
      }
      const at = line.indexOf(':')
      const [field, value] = at < 0 ? [line, ''] : [line.slice(0, at), line.slice(at + 1).replace(/^ /, '')]
      if (field === 'id') frame.id = value
      else if (field === 'event') frame.event = value
      else if (field === 'data') frame.data += (frame.data && '\n') + value
    }
  }
}

/** A body as text, as it comes. */
export async function* texts(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  const reader = body.getReader()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      yield decoder.decode(value, { stream: true })
    }
  } finally {
    reader.cancel().catch(() => {})
  }
}

const base64url = (text: string) =>
  btoa(String.fromCharCode(...new TextEncoder().encode(text)))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '')

/**
 * A WebSocket of the daemon. Browsers send no headers of a page's own with one, so the token goes where
 * Kubernetes' clients put it, among the subprotocols, and `protocol` is the one that is spoken.
 */
export function socket(path: string, protocol: string): WebSocket {
  const bearer = `base64url.bearer.authorization.k8s.io.${base64url(token.value ?? '')}`
  const address = new URL(path, location.href.replace(/^http/, 'ws'))
  const opened = new WebSocket(address, [protocol, bearer])
  opened.binaryType = 'arraybuffer'
  return opened
}

export const enc = encodeURIComponent
