// A page's cures for what no server can change, as docs/resume.md names them. The fragment of the address chooses one.
import { Chat, useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";
import { useState } from "react";
import { createRoot } from "react-dom/client";

const id = decodeURIComponent(location.pathname.split("/").at(-1));

function Messages({ options, resume }) {
  const { messages, sendMessage, status, resumeStream } = useChat({ ...options, resume: true });
  return (
    <>
      <span id="status">{status}</span>
      {messages.map((message) => (
        <li key={message.id} className={message.role}>
          {message.parts.map((part) => (part.type === "text" ? part.text : "")).join("")}
        </li>
      ))}
      <input id="question" />
      <button onClick={() => sendMessage({ text: document.querySelector("#question").value })}>Send</button>
      <button id="resume" onClick={() => (resume ? resume(messages) : resumeStream())}>Resume</button>
    </>
  );
}

function WithChat() {
  const [chat] = useState(() => new Chat({ id, transport: new DefaultChatTransport() }));
  return <Messages options={{ chat }} />;
}

function Remounted() {
  const [mounted, setMounted] = useState({ times: 0, messages: [] });
  function remount(messages) {
    const question = messages.findLastIndex((message) => message.role === "user");
    setMounted({ times: mounted.times + 1, messages: messages.slice(0, question + 1) });
  }
  return <Messages key={mounted.times} options={{ id, messages: mounted.messages }} resume={remount} />;
}

const cures = { "#none": <Messages options={{ id }} />, "#chat": <WithChat />, "#remount": <Remounted /> };
createRoot(document.getElementById("root")).render(cures[location.hash]);
