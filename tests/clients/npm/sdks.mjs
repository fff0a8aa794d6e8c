// Streams one completion with each of the SDKs that are named, and prints as JSON what each made of it:
// node sdks.mjs <base URL> <key> <client>=<model>...
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import Anthropic from "@anthropic-ai/sdk";
import { DefaultChatTransport, readUIMessageStream, streamText } from "ai";
import OpenAI from "openai";

const [url, apiKey, ...asked] = process.argv.slice(2);
const baseURL = `${url}/v1`;
const prompt = "Was macht der Strom?";
const messages = [{ role: "user", content: prompt }];
const openai = () => new OpenAI({ apiKey, baseURL, maxRetries: 0 });
globalThis.AI_SDK_LOG_WARNINGS = false; // they would go to stdout

async function aiSdk(model, outcome) {
  const { fullStream } = streamText({ model, prompt, maxRetries: 0, onError() {} });
  for await (const part of fullStream) {
    if (part.type === "text-delta") outcome.text += part.text;
    if (part.type === "finish") outcome.finish = part.finishReason;
    if (part.type === "error") outcome.error ??= part.error.message;
  }
}

const clients = {
  async "openai chat"(model, outcome) {
    for await (const chunk of await openai().chat.completions.create({ model, messages, stream: true })) {
      outcome.text += chunk.choices[0]?.delta.content ?? "";
      outcome.finish = chunk.choices[0]?.finish_reason ?? outcome.finish;
    }
  },
  async "openai responses"(model, outcome) {
    for await (const event of await openai().responses.create({ model, input: prompt, stream: true })) {
      if (event.type === "response.output_text.delta") outcome.text += event.delta;
      if (event.type === "response.completed") outcome.finish = event.response.status;
    }
  },
  async "anthropic messages"(model, outcome) {
    const stream = new Anthropic({ apiKey, baseURL: url, maxRetries: 0 }).messages.stream({ model, messages, max_tokens: 100 });
    stream.on("text", (delta) => { outcome.text += delta; });
    outcome.finish = (await stream.finalMessage()).stop_reason;
  },
  "ai chat": (model, outcome) => aiSdk(createOpenAI({ apiKey, baseURL }).chat(model), outcome),
  "ai responses": (model, outcome) => aiSdk(createOpenAI({ apiKey, baseURL }).responses(model), outcome),
  "ai messages": (model, outcome) => aiSdk(createAnthropic({ apiKey, baseURL }).messages(model), outcome),
  async "ai user interface"(model, outcome) {
    const transport = new DefaultChatTransport({ api: `${baseURL}/ui`, headers: { Authorization: `Bearer ${apiKey}` } });
    const body = { model, stream: true };
    const stream = await transport.sendMessages({ chatId: "1", messages: [], trigger: "submit-message", body });
    const onError = (error) => { outcome.error ??= error.message; };
    for await (const message of readUIMessageStream({ stream, onError })) {
      outcome.text = message.parts.filter((part) => part.type === "text").map((part) => part.text).join("");
    }
  },
};

async function complete(client, model) {
  const outcome = { text: "", finish: null, error: null };
  try {
    await clients[client](model, outcome);
  } catch (error) {
    outcome.error ??= error.message;
  }
  return [client, outcome];
}

const outcomes = await Promise.all(asked.map((pair) => complete(...pair.split("="))));
console.log(JSON.stringify(Object.fromEntries(outcomes)));
