import http from 'node:http'
import https from 'node:https'
import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { streamSSE } from 'hono/streaming'
import { port, refusal, secure, topic } from './topics.js'

const app = new Hono()

app.on(['GET', 'POST'], '/:server/:mode/events', (context) =>
  streamSSE(context, async (stream) => {
    const left = new AbortController()
    stream.onAbort(() => left.abort())
    const query = context.req.query()
    for await (const number of topic(query.key).numbers(query, context.req.header('Last-Event-ID'), left.signal)) {
      await stream.writeSSE({ id: String(number), data: `${number} ${'x'.repeat(query.size)}` })
    }
  }),
)
app.get('/:server/:mode/refusal', (context) => context.body(refusal, 429, { 'Content-Type': 'text/event-stream' }))
app.get('/go', (context) => {
  topic(context.req.query('key')).go()
  return context.body('')
})
app.get('/state', (context) => context.json(topic(context.req.query('key')).state))

serve({
  fetch: app.fetch,
  port,
  hostname: '127.0.0.1',
  createServer: secure ? https.createServer : http.createServer,
  serverOptions: secure || {},
})
