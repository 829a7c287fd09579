// One VM: facts and charts, log, console, commands, actions.
import { lazy } from './lazy'
import { enc } from './api'
import { canStart, canStop, remove, restart, start, stop } from './deeds'
import { vms } from './fleet'
import { source } from './fleet-page'
import { Logs } from './logs'
import { Empty, moment, State, useDeed } from './parts'
import type { Vm } from './types'
import { VmActions } from './actions'

const Charts = lazy(() => import('./charts'), 'Charts')
const SerialConsole = lazy(() => import('./console'), 'SerialConsole')
const Exec = lazy(() => import('./exec'), 'Exec')

export function VmPage({ name, tab }: { name: string; tab: string }) {
  const vm = vms.value?.find((vm) => vm.name === name)
  if (vms.value === null) return <Empty>Loading.</Empty>
  if (!vm) return <Empty>There is no VM {name}. It may have been deleted.</Empty>
  const tabs = [
    ['', 'Overview'],
    ['logs', 'Log'],
    ['console', 'Console'],
    ['exec', 'Exec'],
  ]
  if (vm.plugin) tabs.push(['actions', 'Actions'])
  return (
    <>
      <Title vm={vm} />
      <nav class="tabs" aria-label={`Parts of ${name}`}>
        {tabs.map(([path, title]) => (
          <a href={`#/vms/${enc(name)}/${path}`} aria-current={tab === path ? 'page' : undefined}>
            {title}
          </a>
        ))}
      </nav>
      <Part vm={vm} tab={tab} />
    </>
  )
}

function Part({ vm, tab }: { vm: Vm; tab: string }) {
  if (tab === 'logs') return <Logs vm={vm} />
  if (tab === 'console') return <SerialConsole vm={vm} key={vm.status} />
  if (tab === 'exec') return <Exec vm={vm} />
  if (tab === 'actions') return <VmActions vm={vm} />
  return (
    <>
      <Charts name={vm.name} runs={vm.status === 'running'} />
      <Facts vm={vm} />
    </>
  )
}

function Title({ vm }: { vm: Vm }) {
  const [busy, run] = useDeed()
  return (
    <div class="bar">
      <h1>{vm.name}</h1>
      <State status={vm.status} note={vm.reason} />
      {vm.workload && vm.status === 'running' && <span class="dim">workload {vm.workload.condition}</span>}
      <span class="gap" />
      {canStart(vm) && (
        <button class="primary" disabled={busy} onClick={() => run(() => start(vm))}>
          Start
        </button>
      )}
      {canStop(vm) && <button onClick={() => restart(vm)}>Restart</button>}
      {canStop(vm) && <button onClick={() => stop(vm)}>Stop</button>}
      <button class="danger-quiet" onClick={() => remove(vm)}>
        Delete
      </button>
    </div>
  )
}

function Facts({ vm }: { vm: Vm }) {
  const steps = vm.boot.steps
  const last = steps.at(-1)?.at_us ?? 0
  const labels = Object.entries(vm.labels ?? {}).map(([name, value]) => `${name}=${value}`)
  const facts: [string, string | undefined][] = [
    ['Reason', vm.reason ?? vm.workload?.reason],
    ['Made of', vm.plugin_version ? `${source(vm)} ${vm.plugin_version}` : source(vm)],
    ['CPUs', String(vm.cpu_cores)],
    ['Memory', `${vm.memory_mb} MiB`],
    ['Address', vm.ip_address],
    ['Ethernet', vm.mac_address],
    ['vsock', String(vm.vsock_cid)],
    ['Starts from', vm.boot_from],
    ['Volumes', vm.volumes?.map((volume) => `${volume.name} at ${volume.path}`).join(', ')],
    ['Labels', labels.join(', ')],
    ['Created', moment(vm.created_at)],
    ['Ends', vm.expires_at && moment(vm.expires_at)],
  ]
  return (
    <div class="columns">
      <section>
        <h2>Facts</h2>
        <dl>
          {facts
            .filter(([, value]) => value)
            .map(([name, value]) => (
              <>
                <dt>{name}</dt>
                <dd>{value}</dd>
              </>
            ))}
        </dl>
      </section>
      {steps.length > 0 && (
        <section>
          <h2>Latest start</h2>
          <table class="steps">
            <tbody>
              {steps.map(({ step, at_us }) => (
                <tr>
                  <th scope="row">{step}</th>
                  <td class="num">{(at_us / 1000).toFixed(1)} ms</td>
                  <td class="part">
                    <progress value={at_us} max={last} aria-label={`${step}, of the whole start`} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )}
    </div>
  )
}
