// Meters of one VM over the last minutes.
import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'

import { meters, type Sample } from './fleet'
import { bytes, Empty } from './parts'
import { isDark } from './theme'

interface Line {
  title: string
  colour: string
  of: (sample: Sample) => number
}

const CPU: Line[] = [{ title: 'busy', colour: '--line-1', of: (sample) => sample.cpu }]
const MEMORY: Line[] = [{ title: 'used', colour: '--line-1', of: (sample) => sample.memory }]
const NETWORK: Line[] = [
  { title: 'in', colour: '--line-1', of: (sample) => sample.received },
  { title: 'out', colour: '--line-2', of: (sample) => sample.sent },
]
const HEIGHT = 130
/** Seconds that are shown at least. */
const WINDOW_S = 60
/** Bytes are marked at powers of two. */
const BINARY = Array.from({ length: 40 }, (_, power) => 2 ** power)

export function Charts({ name, runs }: { name: string; runs: boolean }) {
  const samples = meters.value[name] ?? []
  const last = samples.at(-1)
  if (!runs) return <Empty>It does not run: there is nothing to measure.</Empty>
  if (!last) return <Empty>Waiting for the guest's first answer.</Empty>
  const { metrics } = last
  return (
    <div class="charts">
      <Chart
        title="CPU"
        now={`${last.cpu.toFixed(0)} % of ${metrics.cpus}, load ${metrics.load_1m.toFixed(2)}`}
        samples={samples}
        lines={CPU}
        top={100}
        unit={(value) => `${Math.round(value)} %`}
      />
      <Chart
        title="Memory"
        now={`${bytes(last.memory)} of ${bytes(metrics.memory_total)}`}
        samples={samples}
        lines={MEMORY}
        top={metrics.memory_total}
        unit={bytes}
        steps={BINARY}
      />
      <Chart
        title="Network"
        now={`${bytes(last.received)}/s in, ${bytes(last.sent)}/s out`}
        samples={samples}
        lines={NETWORK}
        unit={(value) => `${bytes(value)}/s`}
        steps={BINARY}
      />
      <p class="dim">
        {metrics.processes} processes, disk {bytes(metrics.disk_used)} of {bytes(metrics.disk_total)}
      </p>
    </div>
  )
}

/** A canvas takes a plain colour: what the browser makes of the variable there. */
function colourIn(element: HTMLElement, name: string): string {
  element.style.color = `var(${name})`
  const [red, green, blue] = getComputedStyle(element).color.match(/[\d.]+/g)!
  element.style.color = ''
  return `rgb(${red} ${green} ${blue})`
}

interface ChartProps {
  title: string
  now: string
  samples: Sample[]
  lines: Line[]
  top?: number
  unit: (value: number) => string
  steps?: number[]
}

function dataOf(samples: Sample[], lines: Line[]): uPlot.AlignedData {
  return [samples.map((sample) => sample.at), ...lines.map((line) => samples.map(line.of))]
}

function Chart({ title, now, samples, lines, top, unit, steps }: ChartProps) {
  const place = useRef<HTMLDivElement>(null)
  const chart = useRef<uPlot | null>(null)
  const dark = isDark()
  useEffect(() => {
    const element = place.current!
    const colour = (name: string) => colourIn(element, name)
    const axis = {
      stroke: colour('--dim'),
      grid: { stroke: colour('--edge'), width: 1 },
      ticks: { show: false },
    }
    const made = new uPlot(
      {
        width: element.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { show: false },
        scales: {
          // Its own idea of one sample is a whole day.
          x: { range: ({ data: [times] }) => [Math.min(times[0]!, times.at(-1)! - WINDOW_S), times.at(-1)!] },
          y: { range: (_, __, high) => [0, top ?? Math.max(1024, high * 1.1)] },
        },
        axes: [
          {
            ...axis,
            size: 24,
            space: 70,
            values: [
              [60, '{HH}:{mm}', null, null, null, null, null, null, 1],
              [1, '{HH}:{mm}:{ss}', null, null, null, null, null, null, 1],
            ],
          },
          {
            ...axis,
            size: 64,
            space: 32,
            ...(steps && { incrs: steps }),
            values: (_, ticks) => ticks.map(unit),
          },
        ],
        series: [
          {},
          ...(lines.map((line) => ({
            stroke: colour(line.colour),
            fill: lines.length === 1 ? colour(line.colour).replace(')', ' / 14%)') : undefined,
            width: 1.5,
            points: { show: false },
          })) as uPlot.Series[]),
        ],
      },
      dataOf(samples, lines),
      element,
    )
    chart.current = made
    const watch = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }))
    watch.observe(element)
    return () => {
      watch.disconnect()
      made.destroy()
      chart.current = null
    }
  }, [dark, top])
  useEffect(() => chart.current?.setData(dataOf(samples, lines)), [samples])
  return (
    <section class="chart">
      <h2>
        {title} <span class="dim">{now}</span>
        {lines.length > 1 &&
          lines.map((line) => (
            <span class="key" style={{ color: `var(${line.colour})` }}>
              {line.title}
            </span>
          ))}
      </h2>
      <div ref={place} class="plot" role="img" aria-label={`${title} over the last minutes: now ${now}`} />
    </section>
  )
}
