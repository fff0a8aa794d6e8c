import { useChat } from "@ai-sdk/react";
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

const id = decodeURIComponent(location.pathname.split("/").at(-1));

function Chat({ saved }) {
  const { messages, sendMessage, status, stop, resumeStream } = useChat({ id, messages: saved, resume: true });
  const [question, setQuestion] = useState(saved.length ? "" : "What happens if I reload?");
  const running = status === "submitted" || status === "streaming";

  useEffect(() => {
    scrollTo(0, document.body.scrollHeight);
  }, [messages]);

  // The library resumes when the page becomes visible again, but not when a visible page is online again.
  useEffect(() => {
    const resume = () => status === "error" && resumeStream();
    addEventListener("online", resume);
    return () => removeEventListener("online", resume);
  }, [status]);

  function ask(event) {
    event.preventDefault();
    sendMessage({ text: question });
    setQuestion("");
  }

  async function halt() {
    await stop(); // this ends only the page's own request
    await fetch(`/api/chat/${encodeURIComponent(id)}/stop`, { method: "POST" });
  }

  return (
    <>
      <header>
        <h1>A chat that survives a reload</h1>
        <span id="status" className={status}>{status}</span>
      </header>
      <ol>
        {messages.map((message) => (
          <li key={message.id} className={message.role}>
            {message.parts.map((part) => (part.type === "text" ? part.text : "")).join("")}
          </li>
        ))}
        {status === "error" && (
          <li className="error">
            The connection is lost. <button onClick={() => resumeStream()}>Reconnect</button>
          </li>
        )}
      </ol>
      <form onSubmit={ask}>
        <input placeholder="Ask anything" aria-label="Question" value={question} onChange={(event) => setQuestion(event.target.value)} required />
        {running ? <button type="button" key="stop" onClick={halt}>Stop</button> : <button key="send">Send</button>}
      </form>
    </>
  );
}

const saved = await (await fetch(`${location.pathname}/messages`)).json();
createRoot(document.getElementById("root")).render(<Chat saved={saved} />);
