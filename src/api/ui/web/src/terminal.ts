// xterm.js in an element, fitted to it.
import { FitAddon } from '@xterm/addon-fit'
import { Terminal } from '@xterm/xterm'

/** Dark in both themes, as programs expect of a terminal. */
const THEME = {
  background: '#10161b',
  foreground: '#d5dde2',
  cursor: '#7fd6c8',
  selectionBackground: '#2f4a55',
}

export interface Fitted {
  terminal: Terminal
  dispose: () => void
}

/** `resized` is told each new size. */
export function fitted(
  element: HTMLElement,
  label: string,
  resized: (cols: number, rows: number) => void,
): Fitted {
  const terminal = new Terminal({
    convertEol: false,
    cursorBlink: true,
    fontFamily: 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace',
    fontSize: 13,
    scrollback: 5000,
    screenReaderMode: true,
    theme: THEME,
  })
  const fit = new FitAddon()
  terminal.loadAddon(fit)
  terminal.open(element)
  terminal.textarea?.setAttribute('aria-label', label)
  // Tab belongs to the program; this is the way out for those who have no mouse.
  terminal.attachCustomKeyEventHandler((event) => {
    if (event.key !== 'Escape' || !event.shiftKey) return true
    document.getElementById('content')?.focus()
    return false
  })
  terminal.onResize(({ cols, rows }) => resized(cols, rows))
  const watch = new ResizeObserver(() => fit.fit())
  watch.observe(element)
  return {
    terminal,
    dispose: () => {
      watch.disconnect()
      terminal.dispose()
    },
  }
}
