// The web console in headless Chromium against a running daemon with real guests: a person's day, by mouse
// and by keyboard. VOLANT_URL and VOLANT_TOKEN name the daemon, VOLANT_SCREENSHOTS a folder for pictures;
// tests/devvm/clients.sh sets them.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { chromium } from 'playwright-core'

const base = process.env.VOLANT_URL
const token = process.env.VOLANT_TOKEN
const shots = process.env.VOLANT_SCREENSHOTS
const axe = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const manifest = fs.readFileSync(process.env.VOLANT_MANIFEST, 'utf8')
/** How long anything may take: guests are emulated, and the machine may be busy. */
const TIMEOUT_MS = 120_000
const PHONE = { width: 390, height: 844 }
const DESK = { width: 1280, height: 800 }

const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] })
const complaints = []
/** Whether the token's time is nearly over: the stream of events is cut then. */
let isEnding = false

/** A browser of its own: its complaints are kept, and what it asks of others than the daemon is one. */
async function visitor(options = {}) {
  const context = await browser.newContext({ viewport: DESK, ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(TIMEOUT_MS)
  page.on('console', (message) => {
    // A refused request is told there too. It is what some of the steps are about, and a guest that
    // stops does not tell its meters.
    const isMeter = message.location().url.endsWith('/guest/metrics')
    const refused = (isMeter ? /status of 4/ : /status of (401|422)/).test(message.text())
    const isCut = isEnding && message.text().includes('ERR_INCOMPLETE_CHUNKED_ENCODING')
    if (message.type() === 'error' && !refused && !isCut) complaints.push(message.text())
  })
  page.on('pageerror', (error) => complaints.push(error.stack))
  page.on('request', (request) => {
    const url = new URL(request.url())
    if (url.origin !== base || url.href.includes(token)) complaints.push(`asked for ${url}`)
  })
  return page
}

async function logIn(page, secret) {
  await page.getByLabel('Token').fill(secret)
  await page.getByRole('button', { name: 'Log in' }).click()
}

/** No serious fault by axe, nothing wider than a phone; a picture of it, if one is asked for. */
async function look(page, name) {
  await page.evaluate(axe)
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ['violations'] }))
  const grave = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical')
  const told = grave.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(' | ')}`)
  assert.deepEqual(told, [], `${name}: what axe finds`)
  for (const [kind, viewport] of [['phone', PHONE], ['desktop', DESK]]) {
    await page.setViewportSize(viewport)
    const width = await page.evaluate(() => document.documentElement.scrollWidth)
    assert.ok(width <= viewport.width, `${name} is ${width} wide on a ${kind}`)
    if (shots) await page.screenshot({ path: path.join(shots, `${name}-${kind}.png`) })
  }
}

async function api(path, init = {}) {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const answer = await fetch(base + path, { ...init, headers })
  assert.ok(answer.ok, `${path}: ${answer.status}`)
  return answer.status === 204 ? null : answer.json()
}

const step = (text) => console.log(`  ${text}`)
const open = (page, hash) => page.evaluate((hash) => void (location.hash = hash), hash)
/** What a terminal shows, without the padding of its lines. */
const shown = (page) => page.locator('.xterm-rows').innerText()
async function untilShown(page, text) {
  await page.waitForFunction((text) => document.querySelector('.xterm-rows')?.textContent.includes(text), text)
}

async function entry(page) {
  await page.goto(base)
  assert.equal(new URL(page.url()).pathname, '/ui/', 'browsers are led there')
  await logIn(page, 'volant_wrong')
  await page.getByText('The daemon does not know this token.').waitFor()
  await look(page, 'login')
  await logIn(page, token)
  await page.getByRole('heading', { name: 'VMs' }).waitFor()
  await page.getByText('live', { exact: true }).waitFor()
  step('log in: a wrong token, the right one')
}

async function create(page) {
  await open(page, '/plugins')
  await page.getByText('Install a plugin').click()
  await page.getByLabel('Manifest').fill('name: nothing')
  await page.getByRole('button', { name: 'Install' }).click()
  await page.getByRole('alert').waitFor()
  await page.getByLabel('Manifest').fill(manifest)
  await page.getByRole('button', { name: 'Install' }).click()
  await page.getByRole('link', { name: 'Create VM of worker' }).click()
  await page.getByLabel('name *').fill('Not A Name')
  await page.getByRole('button', { name: 'Create' }).click()
  await page.getByText('not of the form').waitFor()
  await page.getByLabel('name *').fill('worker-1')
  await page.getByLabel('Environment').fill('STEPS=2')
  await look(page, 'create')
  await page.getByRole('button', { name: 'Create' }).click()
  await page.getByRole('heading', { name: 'worker-1' }).waitFor()
  // One that another client makes comes by itself.
  await open(page, '/')
  const others = [{ name: 'shell', memory_mb: 96 }, { name: 'spare', memory_mb: 64, start: false }]
  for (const vm of others) await api('/api/v1/vms', { method: 'POST', body: JSON.stringify(vm) })
  await page.getByRole('link', { name: 'spare' }).waitFor()
  await page.locator('tr', { hasText: 'worker-1' }).getByText('running').waitFor()
  await page.locator('tr', { hasText: 'worker-1' }).locator('.spark').first().waitFor()
  step('a plugin installed, a VM made of it, followed until it runs')
}

async function fleet(page) {
  await page.keyboard.press('/')
  await page.keyboard.type('worker')
  await page.getByRole('link', { name: 'spare' }).waitFor({ state: 'detached' })
  await page.keyboard.press('Control+A')
  await page.keyboard.press('Backspace')
  // By keyboard alone: asked, left with Escape, asked again, done.
  const remove = page.getByRole('button', { name: 'Delete spare' })
  await remove.focus()
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: 'Delete spare?' }).waitFor()
  await look(page, 'confirm')
  await page.keyboard.press('Escape')
  await page.getByRole('dialog').waitFor({ state: 'detached' })
  await remove.focus()
  await page.keyboard.press('Enter')
  await page.getByRole('dialog').waitFor()
  // That the question before was closed may be told only now.
  await page.locator('dialog').evaluate((dialog) => dialog.dispatchEvent(new Event('close')))
  await page.keyboard.press('Tab')
  await page.keyboard.press('Enter')
  await page.getByRole('link', { name: 'spare' }).waitFor({ state: 'detached' })
  step('filter, delete by keyboard')
}

async function charts(page) {
  await page.getByRole('link', { name: 'worker-1' }).click()
  const chart = page.getByRole('img', { name: /^CPU/ })
  await chart.waitFor()
  // Three of them, each with a line of the colour that lines have in a light page.
  const drawn = () =>
    [...document.querySelectorAll('.uplot canvas')].filter((canvas) => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
      for (let at = 0; at < data.length; at += 4) {
        if (data[at] === 15 && data[at + 1] === 111 && data[at + 2] === 102 && data[at + 3] === 255) return true
      }
      return false
    }).length === 3
  await page.waitForFunction(drawn)
  await page.getByText(/processes, disk/).waitFor()
  step('charts')
}

async function logs(page) {
  await page.getByRole('link', { name: 'Log', exact: true }).click()
  await page.getByRole('log').getByText('worker ready, 2 steps').waitFor()
  await look(page, 'log')
  step('log')
}

async function consoles(page) {
  await page.getByRole('link', { name: 'Console' }).click()
  await page.locator('.xterm-rows').waitFor()
  await page.getByText('open', { exact: true }).waitFor()
  await page.keyboard.type('echo volant-$((6 * 7))\n')
  await untilShown(page, 'volant-42')
  // A second person looks on, is told so, and takes over.
  const second = await visitor({ colorScheme: 'dark' })
  await second.goto(`${base}/ui/#/vms/worker-1/console`)
  await logIn(second, token)
  await untilShown(second, 'volant-42')
  await second.keyboard.type('x')
  await second.getByText('Read only: somebody else types.').waitFor()
  await second.getByRole('button', { name: 'Take over' }).click()
  await second.getByText('open', { exact: true }).waitFor()
  await second.keyboard.type('echo taken-$((1 + 1)) columns-$(stty size | cut -d" " -f2)\n')
  await untilShown(second, 'taken-2')
  await untilShown(page, 'taken-2')
  assert.match(await shown(second), /columns-1\d\d/, 'the guest knows the size')
  await look(second, 'console')
  await second.context().close()
  step('console: typed and echoed, read only, taken over, its size')
}

async function commands(page) {
  await page.getByRole('link', { name: 'Exec' }).click()
  const command = page.getByLabel('Command')
  await command.fill('uname -s; echo wrong >&2; exit 3')
  await command.press('Enter')
  await page.getByText('exit code 3').waitFor()
  assert.match(await page.getByRole('log').innerText(), /Linux[^]*wrong|wrong[^]*Linux/)
  await command.fill('')
  await page.getByRole('button', { name: 'In a terminal' }).click()
  await page.getByText('open', { exact: true }).waitFor()
  await page.keyboard.type('tty && exit 4\n')
  await untilShown(page, '/dev/pts/')
  await page.getByText('exit code 4').waitFor()
  await look(page, 'exec')
  step('a command, a terminal')
}

async function actions(page) {
  await page.getByRole('link', { name: 'Actions' }).click()
  await page.getByLabel('Text').fill('how long is this')
  await page.getByRole('button', { name: 'Call count' }).click()
  await page.getByText('"bytes": 27').waitFor()
  await page.getByRole('button', { name: 'Call progress' }).click()
  await page.getByText('{"step": 2, "of": 2}').waitFor()
  await look(page, 'actions')
  step('actions: a form, a stream')
}

async function history(page) {
  await page.getByRole('link', { name: 'Events' }).click()
  await page.getByLabel('Filter').fill('worker-1')
  await page.getByText('VM_RUNNING').waitFor()
  await look(page, 'events')
  await page.getByRole('link', { name: 'Images' }).click()
  await page.getByRole('heading', { name: 'Images' }).waitFor()
  await page.getByRole('button', { name: 'Prune' }).click()
  await look(page, 'images')
  await page.getByRole('link', { name: 'Plugins' }).click()
  await page.getByRole('link', { name: 'worker', exact: true }).click()
  await page.getByText('"schema_version"').waitFor()
  await look(page, 'plugin')
  step('events, images, a plugin')
}

async function farewell(page) {
  await open(page, '/')
  await page.getByRole('heading', { name: 'VMs' }).waitFor()
  await look(page, 'fleet')
  await open(page, '/vms/worker-1')
  await page.getByRole('img', { name: /^Network/ }).waitFor()
  await look(page, 'vm')
  await page.getByRole('button', { name: 'Stop' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Stop' }).click()
  await page.locator('main .bar .state.stopped').waitFor()
  await page.getByLabel('Theme').selectOption('dark')
  await look(page, 'dark')
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.getByRole('heading', { name: 'volantd' }).waitFor()
  assert.equal(await page.evaluate(() => sessionStorage.length), 0)
  // Going back shows nothing.
  await page.goBack()
  await page.getByLabel('Token').waitFor()
  await open(page, '/')

  const body = JSON.stringify({ name: `ui-${Date.now()}`, scope: 'read', expires_in_seconds: 3 })
  const { secret } = await api('/api/v1/tokens', { method: 'POST', body })
  isEnding = true
  await logIn(page, secret)
  await page.getByRole('heading', { name: 'VMs' }).waitFor()
  await page.getByText('The token is not valid any more. Log in again.').waitFor()
  await look(page, 'expired')
  step('stop, log out, a token that expires')
}

const page = await visitor({ colorScheme: 'light' })
const began = Date.now()
try {
  for (const part of [entry, create, fleet, charts, logs, consoles, commands, actions, history, farewell]) {
    await part(page)
  }
  assert.deepEqual(complaints, [], 'what the browser complains of')
} catch (error) {
  if (shots) await page.screenshot({ path: path.join(shots, 'failed.png') })
  console.log(complaints)
  throw error
} finally {
  await browser.close()
}
// The clients that come next look at what there is.
for (const vm of ['worker-1', 'shell']) await api(`/api/v1/vms/${vm}`, { method: 'DELETE' })
await api('/api/v1/plugins/worker', { method: 'DELETE' })
step(`no complaint of the browser; ${Math.round((Date.now() - began) / 1000)} s`)
