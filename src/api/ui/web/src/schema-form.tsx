// A form made from a JSON Schema of an object. What has no plain field is typed as JSON.
import { useState } from 'preact/hooks'

import { Field, type Tied } from './parts'
import type { Schema } from './types'

export type Values = Record<string, unknown>
type Definitions = Record<string, Schema>

/** A schema without references and without "or null". */
export function resolved(schema: Schema, definitions: Definitions): Schema {
  if (schema.$ref) {
    const name = schema.$ref.split('/').at(-1)!
    const { $ref: _, ...own } = schema
    return resolved({ ...definitions[name], ...own }, definitions)
  }
  const options = schema.anyOf ?? schema.oneOf
  if (options) {
    const { anyOf: _, oneOf: __, ...own } = schema
    const real = options.filter((option) => option.type !== 'null')
    if (real.length === 1) return resolved({ ...real[0], ...own }, definitions)
    const words = real.filter((option) => option.const !== undefined)
    if (words.length === real.length) return { ...own, enum: words.map((word) => word.const) }
  }
  if (Array.isArray(schema.type)) {
    const real = schema.type.filter((type) => type !== 'null')
    if (real.length === 1) return { ...schema, type: real[0]! }
  }
  return schema
}

/** How a property is typed: one field, lines of text, or JSON. */
type Kind = 'choice' | 'yes-no' | 'number' | 'text' | 'pairs' | 'words' | 'json'

export function kindOf(schema: Schema): Kind {
  if (schema.enum) return 'choice'
  if (schema.type === 'boolean') return 'yes-no'
  if (schema.type === 'integer' || schema.type === 'number') return 'number'
  if (schema.type === 'string') return 'text'
  const each = typeof schema.additionalProperties === 'object' ? schema.additionalProperties : undefined
  if (schema.type === 'object' && each?.type === 'string' && !schema.properties) return 'pairs'
  if (schema.type === 'array' && schema.items?.type === 'string') return 'words'
  return 'json'
}

const lines = (text: string) => text.split('\n').filter((line) => line.trim() !== '')

/** What was typed as the value it stands for; undefined leaves the property out. Throws what is wrong. */
export function valueOf(schema: Schema, typed: string): unknown {
  const kind = kindOf(schema)
  if (typed === '') return undefined
  switch (kind) {
    case 'choice':
      return schema.enum!.find((option) => String(option) === typed)
    case 'yes-no':
      return typed === 'true'
    case 'number': {
      const value = Number(typed)
      if (Number.isNaN(value)) throw new Error('a number is needed')
      if (schema.type === 'integer' && !Number.isInteger(value)) throw new Error('a whole number is needed')
      if (schema.minimum !== undefined && value < schema.minimum)
        throw new Error(`at least ${schema.minimum}`)
      if (schema.maximum !== undefined && schema.maximum < value) throw new Error(`at most ${schema.maximum}`)
      return value
    }
    case 'text':
      if (schema.pattern && !new RegExp(schema.pattern, 'u').test(typed))
        throw new Error(`not of the form ${schema.pattern}`)
      if (schema.minLength !== undefined && typed.length < schema.minLength)
        throw new Error(`at least ${schema.minLength} characters`)
      if (schema.maxLength !== undefined && schema.maxLength < typed.length)
        throw new Error(`at most ${schema.maxLength} characters`)
      return typed
    case 'pairs':
      return Object.fromEntries(
        lines(typed).map((line) => {
          const at = line.indexOf('=')
          if (at < 1) throw new Error(`NAME=VALUE is needed, not ${line}`)
          return [line.slice(0, at).trim(), line.slice(at + 1)]
        }),
      )
    case 'words':
      return lines(typed)
    case 'json':
      try {
        return JSON.parse(typed)
      } catch (error) {
        throw new Error(`JSON is needed: ${(error as Error).message}`)
      }
  }
}

/** All properties that were typed; `wrong` has a sentence for each that is not right. */
export function collect(
  schema: Schema,
  definitions: Definitions,
  typed: Record<string, string>,
): { values: Values; wrong: Record<string, string> } {
  const values: Values = {}
  const wrong: Record<string, string> = {}
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    try {
      const value = valueOf(resolved(property, definitions), typed[name] ?? '')
      if (value !== undefined) values[name] = value
      else if (schema.required?.includes(name)) throw new Error('this is needed')
    } catch (error) {
      wrong[name] = (error as Error).message
    }
  }
  return { values, wrong }
}

const firstTyped = (schema: Schema, definitions: Definitions) =>
  Object.fromEntries(
    Object.entries(schema.properties ?? {})
      .map(([name, property]) => [name, resolved(property, definitions).default] as const)
      .filter(
        ([, value]) => typeof value === 'number' || typeof value === 'string' || typeof value === 'boolean',
      )
      .map(([name, value]) => [name, String(value)]),
  )

/** What is typed into a form for `schema`, and what it comes to. */
export function useTyped(schema: Schema, definitions: Definitions = {}, first: Record<string, string> = {}) {
  const [typed, setTyped] = useState<Record<string, string>>(() => ({
    ...firstTyped(schema, definitions),
    ...first,
  }))
  const [asked, setAsked] = useState(false)
  const { values, wrong } = collect(schema, definitions, typed)
  const set = (name: string, value: string) => setTyped((typed) => ({ ...typed, [name]: value }))
  /** The values if all are right; else what is wrong is shown. */
  const done = (): Values | null => {
    setAsked(true)
    return Object.keys(wrong).length === 0 ? values : null
  }
  return { typed, set, done, wrong: asked ? wrong : {}, schema, definitions }
}

export type Typed = ReturnType<typeof useTyped>

const HELP: Partial<Record<Kind, string>> = {
  pairs: 'NAME=VALUE, one a line',
  words: 'one a line',
  json: 'JSON',
}

/** Words of names that people write in another way. */
const WORDS: Record<string, string> = {
  cpu: 'CPU',
  env: 'environment',
  mb: 'in MiB',
  ms: 'in ms',
  ttl: 'time to live',
}

const titled = (name: string) =>
  name
    .split('_')
    .map((word) => WORDS[word] ?? word)
    .join(' ')

/** The fields of these properties. */
export function Fields({
  form,
  names,
  choices = {},
}: {
  form: Typed
  names: string[]
  choices?: Record<string, string[]>
}) {
  return (
    <div class="fields">
      {names.map((name) => {
        const schema = resolved(form.schema.properties?.[name] ?? {}, form.definitions)
        const kind = kindOf(schema)
        const help = [schema.description, HELP[kind]].filter(Boolean).join(' ')
        const needed = form.schema.required?.includes(name) ?? false
        return (
          <Field
            key={name}
            label={`${schema.title ?? titled(name)}${needed ? ' *' : ''}`}
            help={help}
            error={form.wrong[name]}
          >
            {(tied) => (
              <Input
                tied={tied}
                name={name}
                schema={schema}
                kind={kind}
                choices={choices[name]}
                value={form.typed[name] ?? ''}
                wrong={form.wrong[name] !== undefined}
                set={(value) => form.set(name, value)}
              />
            )}
          </Field>
        )
      })}
    </div>
  )
}

interface InputProps {
  tied: Tied
  name: string
  schema: Schema
  kind: Kind
  choices: string[] | undefined
  value: string
  wrong: boolean
  set: (value: string) => void
}

function Input({ tied, name, schema, kind, choices, value, wrong, set }: InputProps) {
  const common = {
    ...tied,
    name,
    value,
    'aria-invalid': wrong,
    onInput: (event: { currentTarget: { value: string } }) => set(event.currentTarget.value),
  }
  const options =
    choices ??
    (kind === 'choice'
      ? schema.enum!.filter((option) => option !== null).map(String)
      : kind === 'yes-no'
        ? ['true', 'false']
        : null)
  if (options) {
    return (
      <select {...common}>
        <option value="">{choices && 'choose'}</option>
        {options.map((option) => (
          <option value={option}>{kind === 'yes-no' ? (option === 'true' ? 'yes' : 'no') : option}</option>
        ))}
      </select>
    )
  }
  if (kind === 'number')
    return (
      <input
        type="number"
        min={schema.minimum}
        max={schema.maximum}
        step={schema.type === 'integer' ? 1 : 'any'}
        {...common}
      />
    )
  if (kind === 'text' && schema.format === 'password')
    return <input type="password" autocomplete="off" {...common} />
  if (kind === 'text') return <input autocomplete="off" spellcheck={false} {...common} />
  return <textarea rows={3} spellcheck={false} {...common} />
}
