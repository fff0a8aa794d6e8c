// What a stream may send so far, and how many streams were opened and left, for each key.
import { EventEmitter, once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'

class Topic extends EventEmitter {
  state = { opened: 0, left: 0 }
  signals = 0

  go() {
    this.signals += 1
    this.emit('go')
  }

  // Yields the numbers of the events when they may be sent; `signal` aborts when the client has left.
  async *numbers(query, last, signal) {
    const [count, burst, tick] = [query.count, query.burst, query.tick].map(Number)
    this.state.opened += 1
    try {
      for (let number = Number(last ?? 0) + 1; number <= count; number += 1) {
        if (tick && number > burst) await setTimeout(tick, undefined, { signal })
        while (!tick && number > burst + this.signals) await once(this, 'go', { signal })
        signal.throwIfAborted()
        yield number
      }
      this.state.left -= 1
    } catch (error) {
      if (!signal.aborted) throw error
    } finally {
      this.state.left += 1
    }
  }
}

const topics = new Map()

export function topic(key) {
  if (!topics.has(key)) topics.set(key, new Topic().setMaxListeners(0))
  return topics.get(key)
}

export const refusal = '{"error": {"message": "too many requests"}}'
export const port = Number(process.env.PORT)
export const secure = process.env.CERTIFICATE && { cert: readFileSync(process.env.CERTIFICATE), key: readFileSync(process.env.KEY) }
