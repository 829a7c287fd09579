// Parts that are large and not always needed come when they are first shown.
import type { ComponentType } from 'preact'
import { useEffect, useState } from 'preact/hooks'

import { complain, Empty } from './parts'

export function lazy<P extends object, N extends string>(
  load: () => Promise<Record<N, ComponentType<P>>>,
  name: N,
): ComponentType<P> {
  let known: ComponentType<P> | undefined
  return function Lazy(props: P) {
    const [, setLoaded] = useState(false)
    useEffect(() => {
      if (known) return
      load().then((module) => {
        known = module[name]
        setLoaded(true)
      }, complain)
    }, [])
    const Known = known
    return Known ? <Known {...props} /> : <Empty>Loading.</Empty>
  }
}
