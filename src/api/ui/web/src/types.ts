// What the API answers, as far as the console shows it; the whole is in /openapi.json.

export interface Vm {
  id: number
  name: string
  status: string
  reason?: string
  ready: boolean
  workload?: { condition: string; reason?: string; exits: number }
  runtime: string
  plugin?: string
  plugin_version?: string
  labels?: Record<string, string>
  ip_address: string
  mac_address: string
  vsock_cid: number
  cpu_cores: number
  memory_mb: number
  console: boolean
  image?: { reference: string; ephemeral: boolean }
  volumes?: { name: string; path: string }[]
  boot_from: string
  created_at: string
  expires_at?: string
  boot: { exits: number; steps: { step: string; at_us: number }[] }
}

export interface Metrics {
  cpus: number
  cpu_busy_us: number
  cpu_idle_us: number
  load_1m: number
  memory_total: number
  memory_available: number
  disk_total: number
  disk_used: number
  processes: number
  net_received: number
  net_sent: number
  time: string
}

export interface Happened {
  id: number
  type: string
  name: string
  status: string
  timestamp: string
  message: string
}

export interface Plugin {
  name: string
  version: string
  enabled: boolean
  runtime: string
  actions: string[]
  vms: number
  versions: { version: string; installed_at: string }[]
  installed_at: string
}

export interface Action {
  description?: string
  method: string
  path: string
  input?: Schema
}

export interface Image {
  reference: string
  id: string
  root_bytes: number
  layer_bytes: number
  created_at: string
}

export interface Schema {
  type?: string | string[]
  title?: string
  description?: string
  properties?: Record<string, Schema>
  required?: string[]
  items?: Schema
  enum?: unknown[]
  const?: unknown
  default?: unknown
  minimum?: number
  maximum?: number
  pattern?: string
  minLength?: number
  maxLength?: number
  format?: string
  additionalProperties?: boolean | Schema
  anyOf?: Schema[]
  oneOf?: Schema[]
  $ref?: string
}
