// What can be done to a VM from more than one page.
import { enc, json } from './api'
import { refresh } from './fleet'
import { confirm, tell } from './parts'
import { go } from './route'
import type { Vm } from './types'

const path = (vm: Vm) => `/api/v1/vms/${enc(vm.name)}`

export const canStart = (vm: Vm) => vm.status === 'stopped' || vm.status === 'failed'
export const canStop = (vm: Vm) => vm.status === 'running' || vm.status === 'starting'

export async function start(vm: Vm) {
  await json(`${path(vm)}/start`, { method: 'POST' })
  await refresh()
}

export function stop(vm: Vm) {
  confirm({
    title: `Stop ${vm.name}?`,
    text: 'Its guest is asked to shut down. What is in its memory is lost.',
    verb: 'Stop',
    deed: async () => {
      await json(`${path(vm)}/stop`, { method: 'POST' })
      await refresh()
    },
  })
}

export function restart(vm: Vm) {
  confirm({
    title: `Restart ${vm.name}?`,
    text: 'Its guest is stopped and started again. What is in its memory is lost.',
    verb: 'Restart',
    deed: async () => {
      await json(`${path(vm)}/restart`, { method: 'POST' })
      await refresh()
    },
  })
}

export function remove(vm: Vm) {
  confirm({
    title: `Delete ${vm.name}?`,
    text: 'The VM and everything that is its own goes. Volumes stay. This cannot be undone.',
    verb: 'Delete',
    deed: async () => {
      await json(path(vm), { method: 'DELETE' })
      await refresh()
      tell(`${vm.name} is deleted.`)
      if (location.hash.startsWith(`#/vms/${enc(vm.name)}`)) go('/')
    },
  })
}
