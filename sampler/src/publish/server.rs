//! HTTP: `/metrics`, `/healthz`, `/readyz`.
//!
//! Everything is bounded, and nobody is kept waiting by others:
//!
//! * Scrapes of one window at one time share a body, which goes with them. So few are answered at a time ([`super::turns`])
//!   that those which nobody reads hold few bodies. What is too much waits for a moment, then gets a 503.
//! * An answer has to be taken within a time, however it is taken: at once, bit by bit, or not at all.
//! * A connection is for one request. Where there are too many, the oldest goes that is not being answered with metrics:
//!   whoever comes to ask for `/healthz` always finds a place.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio_io_timeout::TimeoutStream;

use super::turns::{Turn, Turns};
use super::{Format, Publisher};
use crate::signals::Stop;

/// Connections at a time.
const CONNECTIONS: usize = 64;
/// Time for a request's head to arrive.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// Whoever takes nothing for so long does not read.
const STALL_LIMIT: Duration = Duration::from_secs(3);
/// Time for an answer to be taken. A turn lasts no longer, so that whoever waits for one behind those who read slowly has
/// the metrics within Prometheus' usual limit of 10 s for a scrape.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Time for a connection, with all that it waits for.
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
    loop {
        tokio::select! {
            biased;
            signal = stop.asked() => break tracing::info!(signal, "stopping"),
            _ = &mut failed => break,
            Some(_) = connections.running.join_next() => connections.forget_ended(),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => connections.add(stream, peer.ip(), Arc::clone(&publisher)),
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

/// The answer of a connection.
#[derive(Default)]
struct Answer {
    /// For metrics. It lasts as long as the connection, since the answer is on its way until then.
    turn: OnceLock<Turn>,
    /// It is there, and has to be taken from now on.
    given: Notify,
}

/// All connections, the oldest first.
#[derive(Default)]
struct Connections {
    turns: Arc<Turns>,
    running: JoinSet<()>,
    by_age: VecDeque<(AbortHandle, Weak<Answer>)>,
}

impl Connections {
    /// One more. Of too many one that has no turn goes: as long as it has not asked, or waits, it is owed the least.
    fn add<S>(&mut self, stream: S, peer: IpAddr, publisher: Arc<Publisher>)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        self.forget_ended();
        let has_turn =
            |answer: &Weak<Answer>| answer.upgrade().is_some_and(|answer| answer.turn.get().is_some());
        if self.by_age.len() >= CONNECTIONS
            && let Some(oldest) = self.by_age.iter().position(|(_, answer)| !has_turn(answer))
            && let Some((connection, _)) = self.by_age.remove(oldest)
        {
            tracing::debug!("too many connections: the oldest goes");
            connection.abort();
        }
        let answer = Arc::new(Answer::default());
        let of_it = Arc::downgrade(&answer);
        let running =
            self.running.spawn(connection(stream, peer, publisher, Arc::clone(&self.turns), answer));
        self.by_age.push_back((running, of_it));
    }

    fn forget_ended(&mut self) {
        self.by_age.retain(|(connection, _)| !connection.is_finished());
    }
}

async fn connection<S>(
    stream: S,
    peer: IpAddr,
    publisher: Arc<Publisher>,
    turns: Arc<Turns>,
    answer: Arc<Answer>,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALL_LIMIT));
    let service = service_fn(|request| {
        let (publisher, turns, answer) = (Arc::clone(&publisher), Arc::clone(&turns), Arc::clone(&answer));
        async move {
            let response = respond_to(&request, peer, publisher, &turns, &answer.turn).await;
            answer.given.notify_one();
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let not_taken = async {
        answer.given.notified().await;
        tokio::time::sleep(ANSWER_LIMIT).await;
    };
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(%error, "a connection failed");
        },
        () = not_taken => tracing::debug!(%peer, "an answer was not taken in time"),
        () = tokio::time::sleep(CONNECTION_LIMIT) => tracing::debug!(%peer, "a connection took too long"),
    }
}

async fn respond_to<B>(
    request: &Request<B>,
    peer: IpAddr,
    publisher: Arc<Publisher>,
    turns: &Turns,
    turn: &OnceLock<Turn>,
) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let Some(taken) = turns.take(peer).await else {
                let mut refused = text(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at a time");
                refused.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                return refused;
            };
            // A connection has one request, so that there is none yet.
            let _ = turn.set(taken);
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
mod tests;
