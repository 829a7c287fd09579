// What has happened, the newest first.
import { useState } from 'preact/hooks'

import { enc } from './api'
import { events } from './fleet'
import { Empty, moment, State } from './parts'

export function Events() {
  const [text, setText] = useState('')
  const wanted = text.toLowerCase()
  const shown = events.value
    .filter((event) => `${event.name} ${event.type} ${event.message}`.toLowerCase().includes(wanted))
    .reverse()
  return (
    <>
      <div class="bar">
        <h1>Events</h1>
        <span class="dim">{shown.length}</span>
        <span class="gap" />
        <input
          type="search"
          aria-label="Filter"
          placeholder="Filter"
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
      </div>
      {shown.length === 0 ? (
        <Empty>There are none.</Empty>
      ) : (
        <table class="cards events">
          <thead>
            <tr>
              <th>Time</th>
              <th>VM</th>
              <th>Event</th>
              <th>State</th>
              <th>Message</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((event) => (
              <tr key={event.id}>
                <td data-label="Time">{moment(event.timestamp)}</td>
                <td data-label="VM">
                  <a href={`#/vms/${enc(event.name)}`}>{event.name}</a>
                </td>
                <td data-label="Event">
                  <code>{event.type}</code>
                </td>
                <td data-label="State">
                  <State status={event.status} />
                </td>
                <td data-label="Message">{event.message}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </>
  )
}
