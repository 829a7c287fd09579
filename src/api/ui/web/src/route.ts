// The address after `#` says what is shown: `#/vms/web/logs`. The daemon serves one page.
import { computed, signal } from '@preact/signals'

const hash = signal(location.hash)
addEventListener('hashchange', () => (hash.value = location.hash))

/** The address' words. */
export const route = computed(() =>
  hash.value.replace(/^#\/?/, '').split('?')[0]!.split('/').filter(Boolean).map(decode),
)

/** What follows `?` in it. */
export const query = computed(() => new URLSearchParams(hash.value.split('?')[1] ?? ''))

function decode(word: string): string {
  try {
    return decodeURIComponent(word)
  } catch {
    return word
  }
}

export const go = (path: string) => (location.hash = path)
