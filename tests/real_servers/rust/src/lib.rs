//! What a stream may send so far, and how many streams were opened and left, for each key.

use std::collections::HashMap;
use std::env;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_stream::stream;
use futures::Stream;
use rustls::pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio::time::sleep;

pub const REFUSAL: &str = r#"{"error": {"message": "too many requests"}}"#;

static TOPICS: LazyLock<Mutex<HashMap<String, Arc<Topic>>>> = LazyLock::new(Mutex::default);

#[derive(Default)]
pub struct Topic {
    opened: AtomicUsize,
    left: AtomicUsize,
    signals: watch::Sender<u32>,
}

impl Topic {
    pub fn of(key: &str) -> Arc<Topic> {
        TOPICS.lock().unwrap().entry(key.to_string()).or_default().clone()
    }

    pub fn go(&self) {
        self.signals.send_modify(|count| *count += 1);
    }

    pub fn state(&self) -> String {
        format!(r#"{{"opened": {}, "left": {}}}"#, self.opened.load(SeqCst), self.left.load(SeqCst))
    }
}

#[derive(serde::Deserialize)]
pub struct Key {
    pub key: String,
}

#[derive(serde::Deserialize)]
pub struct Query {
    pub key: String,
    pub count: u32,
    pub burst: u32,
    pub size: usize,
    pub tick: u64,
}

/// Counts a stream that is dropped before its end.
struct Open(Arc<Topic>, bool);

impl Drop for Open {
    fn drop(&mut self) {
        if !self.1 {
            self.0.left.fetch_add(1, SeqCst);
        }
    }
}

/// Yields id and data of the events when they may be sent.
pub fn events(query: Query, last: Option<&str>) -> impl Stream<Item = (String, String)> {
    let topic = Topic::of(&query.key);
    let last: u32 = last.map_or(0, |id| id.parse().unwrap());
    stream! {
        topic.opened.fetch_add(1, SeqCst);
        let mut signals = topic.signals.subscribe();
        let mut open = Open(topic, false);
        for number in last + 1..=query.count {
            if number > query.burst && query.tick > 0 {
                sleep(Duration::from_millis(query.tick)).await;
            } else if number > query.burst {
                signals.wait_for(|count| number <= query.burst + count).await.unwrap();
            }
            yield (number.to_string(), format!("{number} {}", "x".repeat(query.size)));
        }
        open.1 = true;
    }
}

pub fn address() -> std::net::SocketAddr {
    format!("127.0.0.1:{}", env::var("PORT").unwrap()).parse().unwrap()
}

/// Returns the configuration for TLS, if the environment names a certificate.
pub fn tls() -> Option<rustls::ServerConfig> {
    let file = env::var("CERTIFICATE").ok()?;
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let chain = CertificateDer::pem_file_iter(file).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(env::var("KEY").unwrap()).unwrap();
    Some(rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap())
}
