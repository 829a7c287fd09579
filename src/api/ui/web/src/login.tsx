// Log in: the token is tried before it is kept.
import { useState } from 'preact/hooks'

import { farewell, logIn } from './api'
import { ThemeSwitch } from './theme'

export function LogIn() {
  const [text, setText] = useState('')
  const [wrong, setWrong] = useState('')
  const [busy, setBusy] = useState(false)
  const enter = async (event: Event) => {
    event.preventDefault()
    const token = text.trim()
    setBusy(true)
    setWrong('')
    try {
      const headers = { authorization: `Bearer ${token}` }
      const answer = await fetch('/api/v1/vms?limit=1', { headers, cache: 'no-store', credentials: 'omit' })
      if (answer.ok) logIn(token)
      else if (answer.status === 401) setWrong('The daemon does not know this token.')
      else setWrong((await answer.json()).detail)
    } catch {
      setWrong('The daemon does not answer, or this is no token.')
    } finally {
      setBusy(false)
    }
  }
  return (
    <main class="login">
      <form onSubmit={enter}>
        <h1>volantd</h1>
        {farewell.value && (
          <p class="trouble" role="alert">
            {farewell.value}
          </p>
        )}
        <label class="field">
          <span class="label">Token</span>
          <input
            type="password"
            name="token"
            autocomplete="current-password"
            required
            autofocus
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
          />
        </label>
        {wrong && (
          <p class="wrong" role="alert">
            {wrong}
          </p>
        )}
        <button class="primary" disabled={busy || text.trim() === ''}>
          Log in
        </button>
        <p class="help">
          A new one: <code>volantd ctl tokens create NAME --scope operate</code>
          <br />
          It is kept in this tab until it is closed or you log out.
        </p>
        <ThemeSwitch />
      </form>
    </main>
  )
}
