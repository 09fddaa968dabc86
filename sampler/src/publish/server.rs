//! HTTP: `/metrics`, `/healthz`, `/readyz`.
//!
//! Everything is bounded, and nobody is kept waiting by others:
//!
//! * Scrapes of one window at one time share a body, which goes with them. So few are answered at a time that those which
//!   nobody reads hold few bodies, and each has to be taken within a time. What is too much waits for a moment, then gets a 503.
//! * A connection is for one request. Where there are too many, the oldest goes that is not being answered with metrics:
//!   whoever comes to ask for `/healthz` always finds a place.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio_io_timeout::TimeoutStream;

use super::{Format, Publisher};
use crate::signals::Stop;

/// Connections at a time.
const CONNECTIONS: usize = 64;
/// Those of them that are answered with metrics.
const SCRAPES: usize = 8;
/// Time for a request's head to arrive.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// Time for which a scrape waits for its turn.
const TURN_LIMIT: Duration = Duration::from_secs(3);
/// Whoever takes nothing for so long does not read.
const STALL_LIMIT: Duration = Duration::from_secs(3);
/// Time for a connection, answer included: beyond Prometheus' usual limit of 10 s for a scrape.
const CONNECTION_LIMIT: Duration = Duration::from_secs(20);
/// Time for answers that are under way when the daemon is asked to stop.
const STOP_LIMIT: Duration = Duration::from_millis(500);
/// Threads that encode: one for each format.
const ENCODERS: usize = 2;

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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(ENCODERS)
        .build()
        .map_err(ServerError::Runtime)?;
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
    let mut connections = Connections::default();
    let turns = Arc::new(Semaphore::new(SCRAPES));
    loop {
        tokio::select! {
            biased;
            signal = stop.asked() => break tracing::info!(signal, "stopping"),
            _ = &mut failed => break,
            Some(_) = connections.running.join_next() => connections.forget_ended(),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.add(stream, Arc::clone(&publisher), Arc::clone(&turns)),
                Err(error) => {
                    // Out of file descriptors, most likely: it passes, and must not become a busy loop.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    drop(listener);
    let mut running = connections.running;
    let _ = tokio::time::timeout(STOP_LIMIT, async { while running.join_next().await.is_some() {} }).await;
    Ok(())
}

/// Being answered with metrics: kept for as long as the connection lives, since an answer is on its way until then.
type Turn = Arc<OnceLock<OwnedSemaphorePermit>>;

/// All connections, the oldest first.
#[derive(Default)]
struct Connections {
    running: JoinSet<()>,
    by_age: VecDeque<(AbortHandle, Turn)>,
}

impl Connections {
    /// One more. Of too many one that has no turn goes: as long as it has not asked, or waits, it is owed the least.
    fn add(&mut self, stream: TcpStream, publisher: Arc<Publisher>, turns: Arc<Semaphore>) {
        self.forget_ended();
        if self.by_age.len() >= CONNECTIONS
            && let Some(oldest) = self.by_age.iter().position(|(_, turn)| turn.get().is_none())
            && let Some((connection, _)) = self.by_age.remove(oldest)
        {
            tracing::debug!("too many connections: the oldest goes");
            connection.abort();
        }
        let turn = Turn::default();
        let running = self.running.spawn(connection(stream, publisher, turns, Arc::clone(&turn)));
        self.by_age.push_back((running, turn));
    }

    fn forget_ended(&mut self) {
        self.by_age.retain(|(connection, _)| !connection.is_finished());
    }
}

async fn connection(stream: TcpStream, publisher: Arc<Publisher>, turns: Arc<Semaphore>, turn: Turn) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALL_LIMIT));
    let service = service_fn(|request| {
        let (publisher, turns, turn) = (Arc::clone(&publisher), Arc::clone(&turns), Arc::clone(&turn));
        async move { Ok::<_, Infallible>(answer(&request, publisher, turns, &turn).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    match tokio::time::timeout(CONNECTION_LIMIT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection failed"),
        Err(_) => tracing::debug!("a connection took too long"),
    }
}

async fn answer<B>(
    request: &Request<B>,
    publisher: Arc<Publisher>,
    turns: Arc<Semaphore>,
    turn: &OnceLock<OwnedSemaphorePermit>,
) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let Ok(Ok(permit)) = tokio::time::timeout(TURN_LIMIT, turns.acquire_owned()).await else {
                let mut refused = text(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at a time");
                refused.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                return refused;
            };
            // A connection has one request, so that there is none yet.
            let _ = turn.set(permit);
            metrics(request, publisher).await
        }
        "/healthz" => state(publisher.pulse().health().map(|()| None)),
        "/readyz" => state(publisher.pulse().readiness()),
        "/" => text(StatusCode::OK, "Loadline sampler: /metrics, /healthz, /readyz"),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz"),
    }
}

async fn metrics<B>(request: &Request<B>, publisher: Arc<Publisher>) -> Response<Full<Bytes>> {
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

/// Whether all is well, with what is to be known beside it.
fn state(state: Result<Option<String>, String>) -> Response<Full<Bytes>> {
    match state {
        Ok(None) => text(StatusCode::OK, "ok"),
        Ok(Some(note)) => text(StatusCode::OK, &format!("ok; {note}")),
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
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
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
            let (turns, turn) = (Arc::new(Semaphore::new(1)), OnceLock::new());
            let answered = answer(&request, publisher.clone(), turns, &turn).await;
            assert_eq!(answered.status(), StatusCode::OK);
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
