// All VMs at a look.
import { useEffect, useRef, useState } from 'preact/hooks'

import { enc } from './api'
import { canStart, canStop, remove, start, stop } from './deeds'
import { meters, vms } from './fleet'
import { age, bytes, Empty, Spark, State, useDeed, useNow } from './parts'
import type { Vm } from './types'

const STATUSES = ['running', 'starting', 'stopping', 'stopped', 'failed', 'deleting']

/** Every word of `text` has to be somewhere in what is told of the VM. */
export function matches(vm: Vm, text: string, status: string): boolean {
  if (status !== '' && vm.status !== status) return false
  const labels = Object.entries(vm.labels ?? {}).map(([name, value]) => `${name}=${value}`)
  const told = [vm.name, vm.status, vm.ip_address, source(vm), ...labels].join(' ').toLowerCase()
  return text
    .toLowerCase()
    .split(/\s+/)
    .every((word) => told.includes(word))
}

export const source = (vm: Vm) => vm.plugin ?? vm.image?.reference ?? vm.runtime

export function Fleet() {
  const [text, setText] = useState('')
  const [status, setStatus] = useState('')
  const filter = useRef<HTMLInputElement>(null)
  useEffect(() => {
    const focus = (event: KeyboardEvent) => {
      const typing = event.target instanceof Element && event.target.closest('input,select,textarea,dialog')
      if (event.key === '/' && !typing) {
        event.preventDefault()
        filter.current?.focus()
      }
    }
    addEventListener('keydown', focus)
    return () => removeEventListener('keydown', focus)
  }, [])
  const all = vms.value
  if (all === null) return <Empty>Loading.</Empty>
  const shown = all.filter((vm) => matches(vm, text, status))
  return (
    <>
      <div class="bar">
        <h1>VMs</h1>
        <Counts all={all} />
        <span class="gap" />
        <input
          ref={filter}
          type="search"
          aria-label="Filter"
          placeholder="Filter  /"
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
        <select aria-label="State" value={status} onChange={(event) => setStatus(event.currentTarget.value)}>
          <option value="">all states</option>
          {STATUSES.map((name) => (
            <option value={name}>{name}</option>
          ))}
        </select>
        <a class="button primary" href="#/create">
          Create
        </a>
      </div>
      {shown.length === 0 ? (
        <Empty>{all.length === 0 ? 'There are no VMs yet.' : 'No VM fits the filter.'}</Empty>
      ) : (
        <Table shown={shown} />
      )}
    </>
  )
}

function Counts({ all }: { all: Vm[] }) {
  const counts = STATUSES.map((name) => [name, all.filter((vm) => vm.status === name).length] as const)
  return (
    <span class="counts">
      {counts
        .filter(([, count]) => 0 < count)
        .map(([name, count]) => (
          <span class={`state ${name}`}>
            {count} {name}
          </span>
        ))}
    </span>
  )
}

function Table({ shown }: { shown: Vm[] }) {
  const now = useNow()
  return (
    <table class="cards">
      <thead>
        <tr>
          <th>Name</th>
          <th>State</th>
          <th>Made of</th>
          <th>CPU</th>
          <th>Memory</th>
          <th>Address</th>
          <th class="num">Age</th>
          <th>
            <span class="hidden">Actions</span>
          </th>
        </tr>
      </thead>
      <tbody>
        {shown.map((vm) => (
          <Row key={vm.name} vm={vm} now={now} />
        ))}
      </tbody>
    </table>
  )
}

function Row({ vm, now }: { vm: Vm; now: number }) {
  const [busy, run] = useDeed()
  const samples = meters.value[vm.name] ?? []
  const last = samples.at(-1)
  const note = vm.reason ?? vm.workload?.reason
  return (
    <tr>
      <th scope="row">
        <a href={`#/vms/${enc(vm.name)}`}>{vm.name}</a>
      </th>
      <td data-label="State">
        <State status={vm.status} note={note} />
        {vm.workload && vm.status === 'running' && !vm.ready && (
          <span class="dim"> {vm.workload.condition}</span>
        )}
        {vm.status === 'failed' && note && <span class="dim reason"> {note}</span>}
      </td>
      <td data-label="Made of" class="clip" title={source(vm)}>
        {source(vm)}
      </td>
      <td data-label="CPU" class="meter">
        {last && <Spark values={samples.map((sample) => sample.cpu)} top={100} />}
        <span>{last ? `${last.cpu.toFixed(0)} %` : ''}</span>
        <span class="dim"> of {vm.cpu_cores}</span>
      </td>
      <td data-label="Memory" class="meter">
        {last && <Spark values={samples.map((sample) => sample.memory)} top={last.metrics.memory_total} />}
        <span>{last ? bytes(last.memory) : ''}</span>
        <span class="dim"> of {bytes(vm.memory_mb * 2 ** 20)}</span>
      </td>
      <td data-label="Address">
        <code>{vm.ip_address}</code>
      </td>
      <td data-label="Age" class="num" title={vm.created_at}>
        {age(vm.created_at, now)}
      </td>
      <td class="deeds">
        {canStart(vm) && (
          <button disabled={busy} onClick={() => run(() => start(vm))} aria-label={`Start ${vm.name}`}>
            Start
          </button>
        )}
        {canStop(vm) && (
          <button onClick={() => stop(vm)} aria-label={`Stop ${vm.name}`}>
            Stop
          </button>
        )}
        <button class="danger-quiet" onClick={() => remove(vm)} aria-label={`Delete ${vm.name}`}>
          Delete
        </button>
      </td>
    </tr>
  )
}
