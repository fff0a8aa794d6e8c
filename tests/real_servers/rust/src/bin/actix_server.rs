use std::convert::Infallible;

use actix_web::web::{self, Bytes};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use futures::StreamExt;
use servers::{Key, Query, Topic, REFUSAL};

async fn events(query: web::Query<Query>, request: HttpRequest) -> HttpResponse {
    let last = request.headers().get("Last-Event-ID").map(|value| value.to_str().unwrap());
    let events = servers::events(query.into_inner(), last)
        .map(|(id, data)| Ok::<_, Infallible>(Bytes::from(format!("id: {id}\ndata: {data}\n\n"))));
    HttpResponse::Ok().content_type("text/event-stream").streaming(events)
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let server = HttpServer::new(|| {
        App::new()
            .service(web::resource("/{server}/{mode}/events").to(events))
            .route(
                "/{server}/{mode}/refusal",
                web::get().to(|| async { HttpResponse::TooManyRequests().content_type("text/event-stream").body(REFUSAL) }),
            )
            .route(
                "/go",
                web::get().to(|key: web::Query<Key>| async move {
                    Topic::of(&key.key).go();
                    HttpResponse::Ok()
                }),
            )
            .route("/state", web::get().to(|key: web::Query<Key>| async move { Topic::of(&key.key).state() }))
    });
    match servers::tls() {
        None => server.bind(servers::address())?.run().await,
        Some(tls) => server.bind_rustls_0_23(servers::address(), tls)?.run().await,
    }
}
