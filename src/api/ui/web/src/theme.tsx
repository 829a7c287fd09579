// Dark or light: the system's, unless the switch says otherwise.
import { signal } from '@preact/signals'

const KEY = 'volantd.theme'
const THEMES = ['system', 'light', 'dark'] as const
type Theme = (typeof THEMES)[number]

const kept = localStorage.getItem(KEY) as Theme | null
const theme = signal<Theme>(kept && THEMES.includes(kept) ? kept : 'system')
const dark = matchMedia('(prefers-color-scheme: dark)')
const system = signal(dark.matches)
dark.addEventListener('change', () => (system.value = dark.matches))

/** Whether it is dark now: charts draw their own colours. */
export const isDark = () => (theme.value === 'system' ? system.value : theme.value === 'dark')

theme.subscribe((now) => {
  document.documentElement.dataset.theme = now
  localStorage.setItem(KEY, now)
})

export function ThemeSwitch() {
  return (
    <select
      class="quiet"
      aria-label="Theme"
      value={theme.value}
      onChange={(event) => (theme.value = event.currentTarget.value as Theme)}
    >
      {THEMES.map((name) => (
        <option value={name}>{name}</option>
      ))}
    </select>
  )
}
