// The serial console. Many may look on and one types: who is not the one is told, and may take over.
import { useEffect, useRef, useState } from 'preact/hooks'

import { enc, json, socket } from './api'
import { Empty } from './parts'
import { fitted } from './terminal'
import type { Vm } from './types'

type Link = 'connecting' | 'open' | 'closed'

export function SerialConsole({ vm }: { vm: Vm }) {
  const place = useRef<HTMLDivElement>(null)
  const [link, setLink] = useState<Link>('connecting')
  const [why, setWhy] = useState('')
  const [taken, setTaken] = useState(false)
  const [tries, setTries] = useState({ count: 0, input: 'share' })
  const there = vm.console && (vm.status === 'running' || vm.status === 'starting')
  const again = (input: string) => setTries(({ count }) => ({ count: count + 1, input }))
  useEffect(() => {
    if (!there) return
    setLink('connecting')
    setTaken(false)
    const path = `/api/v1/vms/${enc(vm.name)}/console`
    const opened = socket(`${path}?input=${tries.input}`, 'console.volantd')
    let due: ReturnType<typeof setTimeout>
    const resize = (cols: number, rows: number) => {
      clearTimeout(due)
      // A guest that is not up yet has no size to set.
      due = setTimeout(
        () => json(`${path}/resize`, { method: 'POST', body: { cols, rows } }).catch(() => {}),
        300,
      )
    }
    const { terminal, dispose } = fitted(place.current!, `Serial console of ${vm.name}`, resize)
    terminal.onData((data) => opened.readyState === WebSocket.OPEN && opened.send(data))
    opened.onopen = () => {
      setLink('open')
      terminal.focus()
      resize(terminal.cols, terminal.rows)
    }
    opened.onmessage = ({ data }) => {
      if (typeof data === 'string') setTaken(true)
      else terminal.write(new Uint8Array(data as ArrayBuffer))
    }
    opened.onclose = ({ reason }) => {
      setWhy(reason || 'the connection is closed')
      setLink('closed')
    }
    return () => {
      clearTimeout(due)
      opened.onclose = null
      opened.close()
      dispose()
    }
  }, [there, vm.name, tries])
  if (!there)
    return (
      <Empty>{vm.console ? 'It does not run: there is no console.' : 'It was made without a console.'}</Empty>
    )
  return (
    <section class="fill">
      <div class="bar">
        <span class={`link ${link === 'open' ? 'live' : 'lost'}`} role="status">
          {link === 'closed' ? why : link}
        </span>
        {taken && (
          <span role="alert" class="warn">
            Read only: somebody else types.
          </span>
        )}
        {taken && <button onClick={() => again('take')}>Take over</button>}
        {link === 'closed' && <button onClick={() => again('share')}>Connect again</button>}
        <span class="gap" />
        <span class="dim">Shift+Esc leaves the terminal</span>
      </div>
      <div class="screen" ref={place} />
    </section>
  )
}
