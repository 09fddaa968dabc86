//! HTTP: `/metrics`, `/healthz`, `/readyz`.
//!
//! Everything is bounded: so many connections at a time, one request for each, a time within which all of it must be
//! over. A body is encoded once for each window and shared, so neither many scrapes nor slow ones cost memory.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::{Format, Publisher};
use crate::signals::Stop;

/// Connections that are served at a time; others wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// Time for a request's head to arrive.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// Time for a connection, answer included.
const CONNECTION_LIMIT: Duration = Duration::from_secs(30);
/// Time for answers that are under way when the daemon is asked to stop.
const STOP_LIMIT: Duration = Duration::from_millis(500);

/// Why there is no server.
#[derive(Debug, Error)]
pub enum ServerError {
    /// No runtime for it.
    #[error("cannot start the HTTP server")]
    Runtime(#[source] io::Error),
    /// No handlers for signals.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    /// The listening socket cannot be used.
    #[error("cannot serve HTTP")]
    Socket(#[source] io::Error),
}

/// Serves until SIGTERM or SIGINT, or until the other end of `failed` is dropped.
pub fn run(
    listener: TcpListener,
    publisher: Arc<Publisher>,
    failed: oneshot::Receiver<()>,
) -> Result<(), ServerError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServerError::Runtime)?;
    let served = runtime.block_on(serve(listener, publisher, failed));
    // A body that is being encoded for nobody any more is not waited for.
    runtime.shutdown_background();
    served
}

async fn serve(
    listener: TcpListener,
    publisher: Arc<Publisher>,
    mut failed: oneshot::Receiver<()>,
) -> Result<(), ServerError> {
    let mut stop = Stop::new().map_err(ServerError::Signals)?;
    listener.set_nonblocking(true).map_err(ServerError::Socket)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(ServerError::Socket)?;
    let address = listener.local_addr().map_err(ServerError::Socket)?;
    tracing::info!(%address, "serving metrics");
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            signal = stop.asked() => break tracing::info!(signal, "stopping"),
            _ = &mut failed => break,
            // Reaps those that have ended.
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener, &room) => {
                let (stream, place) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors, most likely: it passes, and must not become a busy loop.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let publisher = publisher.clone();
                connections.spawn(async move {
                    connection(stream, publisher).await;
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    let _ =
        tokio::time::timeout(STOP_LIMIT, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &tokio::net::TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = room.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn connection(stream: TcpStream, publisher: Arc<Publisher>) {
    let service = service_fn(|request| {
        let publisher = publisher.clone();
        async move { Ok::<_, Infallible>(answer(&request, publisher).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_LIMIT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection failed"),
        Err(_) => tracing::debug!("a connection took too long"),
    }
}

async fn answer<B>(request: &Request<B>, publisher: Arc<Publisher>) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let format = negotiate(request.headers());
            let is_read = request.method() == Method::GET;
            let encode = move || if is_read { publisher.scrape(format) } else { publisher.peek(format) };
            // Encoding takes some ms, in which /healthz is to be answered.
            match tokio::task::spawn_blocking(encode).await {
                Ok(Ok(body)) => respond(StatusCode::OK, format.content_type(), body),
                Ok(Err(error)) => {
                    tracing::error!(%error, "cannot encode the metrics");
                    text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode the metrics")
                }
                Err(error) => {
                    tracing::error!(%error, "encoding the metrics failed");
                    text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode the metrics")
                }
            }
        }
        "/healthz" => state(publisher.health()),
        "/readyz" => state(publisher.readiness()),
        "/" => text(StatusCode::OK, "Loadline sampler: /metrics, /healthz, /readyz"),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz"),
    }
}

fn state(state: Result<(), String>) -> Response<Full<Bytes>> {
    match state {
        Ok(()) => text(StatusCode::OK, "ok"),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

fn text(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", Bytes::from(format!("{line}\n")))
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}

/// The format that the client would rather have: protobuf where it names it and likes no text better.
fn negotiate(headers: &HeaderMap) -> Format {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (mut protobuf, mut other) = (0.0f32, 0.0f32);
    for range in accepted.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
        let parameter = |name: &str| {
            parameters
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim_matches('"'))
        };
        let quality = match parameter("q").map(str::parse::<f32>) {
            None => 1.0,
            Some(Ok(quality)) if (0.0..=1.0).contains(&quality) => quality,
            // Not a quality: as if the range were not there.
            Some(_) => continue,
        };
        let is_ours = media.eq_ignore_ascii_case("application/vnd.google.protobuf")
            && parameter("proto") == Some("io.prometheus.client.MetricFamily")
            && parameter("encoding").is_none_or(|encoding| encoding == "delimited");
        let of = if is_ours { &mut protobuf } else { &mut other };
        *of = of.max(quality);
    }
    if protobuf > 0.0 && protobuf >= other { Format::Protobuf } else { Format::OpenMetrics }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use sampler_common::snapshot::Snapshot;

    use super::*;
    use crate::source::Health;

    #[tokio::test]
    async fn who_asks_for_the_head_alone_has_not_scraped() {
        let publisher = Arc::new(Publisher::new(1, 10, Duration::from_secs(5)));
        for method in [Method::HEAD, Method::HEAD, Method::GET] {
            let request = Request::builder().method(method).uri("/metrics").body(()).unwrap();
            assert_eq!(answer(&request, publisher.clone()).await.status(), StatusCode::OK);
        }
        let snapshot = Snapshot { at_ns: 1, ..Snapshot::default() };
        publisher.observe(snapshot, Health::default()).unwrap();
        let text = publisher.scrape(Format::OpenMetrics).unwrap();
        let lines = std::str::from_utf8(&text).unwrap().lines();
        let samples: HashMap<_, _> = lines.filter_map(|line| line.rsplit_once(' ')).collect();
        assert_eq!(samples["loadline_sampler_scrapes_total"], "1.0");
    }

    fn negotiated(accept: &str) -> Format {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        negotiate(&headers)
    }

    const PROTOBUF: &str =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

    #[test]
    fn protobuf_is_for_who_likes_it_best() {
        for accept in [
            PROTOBUF.to_owned(),
            format!("{PROTOBUF};q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.2"),
            format!("text/plain;q=0.3, {PROTOBUF};Q=0.7"),
        ] {
            assert_eq!(negotiated(&accept), Format::Protobuf, "{accept}");
        }
    }

    #[test]
    fn everybody_else_gets_text() {
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/vnd.google.protobuf",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
            "application/vnd.google.protobuf;proto=another.Message;encoding=delimited",
            &format!("{PROTOBUF};q=0"),
            &format!("{PROTOBUF};q=seven"),
            &format!("{PROTOBUF};q=0.5,text/plain;q=0.6"),
            ";;==,;,q",
        ] {
            assert_eq!(negotiated(accept), Format::OpenMetrics, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new()), Format::OpenMetrics);
    }
}
