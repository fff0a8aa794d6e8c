//! Run one Rust client: `realclients CLIENT URL OPTIONS`. It prints events and its end as lines of JSON, as clients.py says.

use std::error::Error;
use std::time::Duration;

use async_openai::config::OpenAIConfig;
use async_openai::types::responses::ResponseStreamEvent;
use eventsource_client::{Client as _, ClientBuilder, ReconnectOptions, SSE};
use futures::StreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use reqwest_eventsource::{Event, EventSource};
use serde_json::{json, Value};

type End = Result<String, Box<dyn Error>>;

fn say(line: Value) {
    println!("{line}");
}

fn token(text: &str) {
    if !text.is_empty() {
        say(json!({"id": "", "type": "delta", "data": text}));
    }
}

fn text<'a>(options: &'a Value, name: &str, otherwise: &'a str) -> &'a str {
    options[name].as_str().unwrap_or(otherwise)
}

fn headers(options: &Value) -> Vec<(&str, &str)> {
    let given = options["headers"].as_object();
    given.into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect()
}

async fn with_reqwest(url: &str, options: &Value) -> End {
    let method = text(options, "method", "GET").parse()?;
    let mut request = reqwest::Client::new().request(method, url).body(text(options, "body", "").to_string());
    for (name, value) in headers(options) {
        request = request.header(name, value);
    }
    let mut source = EventSource::new(request)?;
    while let Some(event) = source.next().await {
        match event {
            Ok(Event::Open) => {}
            Ok(Event::Message(event)) => say(json!({"id": event.id, "type": event.event, "data": event.data})),
            Err(reqwest_eventsource::Error::InvalidStatusCode(status, _)) if status == 204 => {
                return Ok("the server has no more".to_string());
            }
            Err(error @ (reqwest_eventsource::Error::InvalidStatusCode(..) | reqwest_eventsource::Error::InvalidContentType(..))) => {
                return Err(error.into());
            }
            Err(error) => say(json!({"lost": error.to_string()})),
        }
    }
    Ok("the stream ended".to_string())
}

async fn with_eventsource_client(url: &str, options: &Value) -> End {
    let failed = |error: eventsource_client::Error| error.to_string();
    let again = ReconnectOptions::reconnect(true).delay(Duration::from_millis(50)).build();
    let mut builder = ClientBuilder::for_url(url).map_err(failed)?.reconnect(again).method(text(options, "method", "GET").to_string());
    if let Some(body) = options["body"].as_str() {
        builder = builder.body(body.to_string());
    }
    for (name, value) in headers(options) {
        builder = builder.header(name, value).map_err(failed)?;
    }
    let mut stream = builder.build_with_transport(HyperTransport::builder().build_http()?).stream();
    while let Some(event) = stream.next().await {
        match event {
            Ok(SSE::Event(event)) => {
                say(json!({"id": event.id.unwrap_or_default(), "type": event.event_type, "data": event.data}));
            }
            Ok(_) => {}
            Err(error @ eventsource_client::Error::UnexpectedResponse(..)) => return Err(error.to_string().into()),
            Err(error) => say(json!({"lost": error.to_string()})),
        }
    }
    Ok("the stream ended".to_string())
}

fn openai(url: &str, options: &Value) -> async_openai::Client<OpenAIConfig> {
    let config = OpenAIConfig::new().with_api_base(format!("{url}/v1")).with_api_key(text(options, "key", ""));
    async_openai::Client::with_config(config)
}

async fn with_chat(url: &str, options: &Value) -> End {
    let messages = json!([{"role": "user", "content": options["prompt"]}]);
    let asked = serde_json::from_value(json!({"model": options["model"], "messages": messages}))?;
    let mut stream = openai(url, options).chat().create_stream(asked).await?;
    let mut end = "unfinished".to_string();
    while let Some(chunk) = stream.next().await {
        for choice in chunk?.choices {
            token(choice.delta.content.as_deref().unwrap_or(""));
            if let Some(reason) = choice.finish_reason {
                end = serde_json::to_value(reason)?.as_str().unwrap_or("unknown").to_string();
            }
        }
    }
    Ok(end)
}

async fn with_responses(url: &str, options: &Value) -> End {
    let asked = serde_json::from_value(json!({"model": options["model"], "input": options["prompt"]}))?;
    let mut stream = openai(url, options).responses().create_stream(asked).await?;
    let mut end = "unfinished".to_string();
    while let Some(event) = stream.next().await {
        match event? {
            ResponseStreamEvent::ResponseOutputTextDelta(event) => token(&event.delta),
            ResponseStreamEvent::ResponseCompleted(_) => end = "completed".to_string(),
            ResponseStreamEvent::ResponseError(error) => return Err(error.message.into()),
            _ => {}
        }
    }
    Ok(end)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [name, url, options] = given.as_slice() else {
        return Err("usage: realclients CLIENT URL OPTIONS".into());
    };
    let options: Value = serde_json::from_str(options)?;
    let end = match name.as_str() {
        "reqwest-eventsource" => with_reqwest(url, &options).await,
        "rust-eventsource-client" => with_eventsource_client(url, &options).await,
        "async-openai chat" => with_chat(url, &options).await,
        "async-openai responses" => with_responses(url, &options).await,
        _ => return Err(format!("{name} is no client of this program").into()),
    };
    say(match end {
        Ok(end) => json!({ "end": end }),
        Err(error) => json!({ "error": error.to_string() }),
    });
    Ok(())
}
