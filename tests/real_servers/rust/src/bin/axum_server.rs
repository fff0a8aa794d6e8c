use std::convert::Infallible;
use std::sync::Arc;

use axum::extract;
use axum::http::{header, HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::Router;
use futures::StreamExt;
use servers::{Key, Query, Topic, REFUSAL};

async fn events(extract::Query(query): extract::Query<Query>, headers: HeaderMap) -> impl IntoResponse {
    let last = headers.get("Last-Event-ID").map(|value| value.to_str().unwrap());
    Sse::new(servers::events(query, last).map(|(id, data)| Ok::<_, Infallible>(Event::default().id(id).data(data))))
}

#[tokio::main]
async fn main() {
    let app = Router::new()
        .route("/{server}/{mode}/events", get(events).post(events))
        .route(
            "/{server}/{mode}/refusal",
            get(|| async { (StatusCode::TOO_MANY_REQUESTS, [(header::CONTENT_TYPE, "text/event-stream")], REFUSAL) }),
        )
        .route("/go", get(|key: extract::Query<Key>| async move { Topic::of(&key.key).go() }))
        .route("/state", get(|key: extract::Query<Key>| async move { Topic::of(&key.key).state() }))
        .into_make_service();
    match servers::tls() {
        None => axum_server::bind(servers::address()).serve(app).await.unwrap(),
        Some(tls) => {
            let tls = axum_server::tls_rustls::RustlsConfig::from_config(Arc::new(tls));
            axum_server::bind_rustls(servers::address(), tls).serve(app).await.unwrap()
        }
    }
}
