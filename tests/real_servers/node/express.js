import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import express from 'express'
import { port, refusal, secure, topic } from './topics.js'

const app = express()

app.all('/:server/:mode/events', async (request, response) => {
  const left = new AbortController()
  response.on('close', () => left.abort())
  response.set('Content-Type', 'text/event-stream')
  if (request.query.close) response.removeHeader('Transfer-Encoding') // only the end of the connection delimits the body then
  response.flushHeaders()
  for await (const number of topic(request.query.key).numbers(request.query, request.get('Last-Event-ID'), left.signal)) {
    const text = `id: ${number}\ndata: ${number} ${'x'.repeat(request.query.size)}\n\n`
    if (!response.write(text)) await once(response, 'drain', { signal: left.signal }).catch(() => {})
  }
  response.end()
})
app.get('/:server/:mode/refusal', (request, response) => {
  response.writeHead(429, { 'Content-Type': 'text/event-stream' }).end(refusal)
})
app.get('/go', (request, response) => {
  topic(request.query.key).go()
  response.end()
})
app.get('/state', (request, response) => response.json(topic(request.query.key).state))

const server = secure ? https.createServer(secure, app) : http.createServer(app)
server.listen(port, '127.0.0.1')
