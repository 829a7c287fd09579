// The frame around the pages: log in, the head with its links, and which page is shown.
import { render } from 'preact'
import { useEffect } from 'preact/hooks'

import '@xterm/xterm/css/xterm.css'
import 'uplot/dist/uPlot.min.css'
import './style.css'
import './parts.css'

import { logOut, token } from './api'
import { Create } from './create'
import { Events } from './events'
import { follow, link } from './fleet'
import { Fleet } from './fleet-page'
import { Images } from './images'
import { LogIn } from './login'
import { Confirm, Empty, Notice } from './parts'
import { PluginPage, Plugins } from './plugins'
import { route } from './route'
import { ThemeSwitch } from './theme'
import { VmPage } from './vm'

const LINKS = [
  ['VMs', ''],
  ['Plugins', 'plugins'],
  ['Images', 'images'],
  ['Events', 'events'],
] as const

const STATE_OF_LINK = {
  connecting: 'connecting',
  live: 'live',
  polling: 'every 4 s',
  lost: 'reconnecting',
}

function Head() {
  const here = route.value[0] ?? ''
  const current = here === 'vms' || here === 'create' ? '' : here
  return (
    <header>
      <a class="brand" href="#/">
        volantd
      </a>
      <nav aria-label="Pages">
        {LINKS.map(([title, path]) => (
          <a href={`#/${path}`} aria-current={current === path ? 'page' : undefined}>
            {title}
          </a>
        ))}
      </nav>
      <span class={`link ${link.value}`} role="status">
        {STATE_OF_LINK[link.value]}
      </span>
      <ThemeSwitch />
      <button class="quiet" onClick={() => logOut('')}>
        Log out
      </button>
    </header>
  )
}

function Page() {
  const [first, second, third] = route.value
  if (first === undefined) return <Fleet />
  if (first === 'create') return <Create />
  if (first === 'vms' && second) return <VmPage key={second} name={second} tab={third ?? ''} />
  if (first === 'plugins') return second ? <PluginPage key={second} name={second} /> : <Plugins />
  if (first === 'images') return <Images />
  if (first === 'events') return <Events />
  return <Empty>There is no such page.</Empty>
}

function Console() {
  useEffect(() => {
    const ended = new AbortController()
    void follow(ended.signal)
    return () => ended.abort()
  }, [])
  const words = route.value
  useEffect(() => {
    document.title = `${words[0] === 'vms' && words[1] ? words[1] : words[0] || 'VMs'} · volantd`
  }, [words])
  return (
    <>
      <a
        class="skip"
        href="#content"
        onClick={(event) => (event.preventDefault(), document.getElementById('content')?.focus())}
      >
        To the content
      </a>
      <Head />
      <main id="content" tabIndex={-1}>
        <Page />
      </main>
    </>
  )
}

function App() {
  return (
    <>
      {token.value === null ? <LogIn /> : <Console key={token.value} />}
      <Confirm />
      <Notice />
    </>
  )
}

render(<App />, document.getElementById('app')!)
