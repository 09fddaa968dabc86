use std::collections::HashMap;
use std::net::Ipv4Addr;

use sampler_common::snapshot::Snapshot;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;

use super::*;
use crate::publish::turns::TURNS;
use crate::source::Health;

const ONE: IpAddr = address(1);
const ANOTHER: IpAddr = address(2);

const fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

#[tokio::test]
async fn who_asks_for_the_head_alone_has_not_scraped() {
    let publisher = Arc::new(Publisher::new(1, 10, Duration::from_secs(5)));
    for method in [Method::HEAD, Method::HEAD, Method::GET] {
        let request = Request::builder().method(method).uri("/metrics").body(()).unwrap();
        let (turns, turn) = (Turns::default(), OnceLock::new());
        let answered = respond_to(&request, ONE, publisher.clone(), &turns, &turn).await;
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

/// A server whose connections are within this process. Its clock stands still while anybody has something to do, so that what
/// a test takes is what somebody was made to wait.
struct Served {
    connections: Connections,
    publisher: Arc<Publisher>,
}

impl Served {
    fn new() -> Self {
        let publisher = Arc::new(Publisher::new(1, 10, Duration::from_secs(5)));
        Self { connections: Connections::default(), publisher }
    }

    /// Asks from this address, through buffers that hold a small part of an answer.
    async fn ask(&mut self, peer: IpAddr, path: &str) -> DuplexStream {
        let (mut client, stream) = tokio::io::duplex(64);
        self.connections.add(stream, peer, Arc::clone(&self.publisher));
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        client
    }

    /// Asks for metrics, and takes of the answer as little a second as is not a stall.
    async fn trickle(&mut self, peer: IpAddr) {
        let mut client = self.ask(peer, "/metrics").await;
        tokio::spawn(async move {
            while client.read_u8().await.is_ok() {
                tokio::time::sleep(STALL_LIMIT / 3).await;
            }
        });
    }

    /// Asks and reads all of the answer; with how long that took.
    async fn answer(&mut self, peer: IpAddr, path: &str) -> (String, Duration) {
        let begun = Instant::now();
        let mut answer = String::new();
        self.ask(peer, path).await.read_to_string(&mut answer).await.unwrap();
        (answer, begun.elapsed())
    }
}

fn is_whole_scrape(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("# EOF\n")
}

/// Those who asked before have their turns, or wait for one.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn who_takes_an_answer_bit_by_bit_has_it_taken_away_in_time_for_others() {
    let mut served = Served::new();
    for number in 0..TURNS {
        served.trickle(address(10 + number as u8)).await;
    }
    settled().await;
    let (answer, took) = served.answer(ONE, "/metrics").await;
    assert!(is_whole_scrape(&answer), "{answer}");
    assert!(took > Duration::from_secs(1) && took <= ANSWER_LIMIT, "all turns were taken: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_address_that_keeps_asking_and_reads_slowly_keeps_no_other_waiting() {
    let mut served = Served::new();
    for _ in 0..2 * TURNS {
        served.trickle(ONE).await;
    }
    settled().await;
    let (answer, took) = served.answer(ANOTHER, "/metrics").await;
    assert!(is_whole_scrape(&answer), "{answer}");
    assert_eq!(took, Duration::ZERO);
    // It has its own share, after its own.
    let (answer, _) = served.answer(ONE, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn health_is_answered_at_once_while_every_connection_and_turn_is_taken() {
    let mut served = Served::new();
    for number in 0..2 * CONNECTIONS {
        served.trickle(address(number as u8)).await;
    }
    settled().await;
    let (answer, took) = served.answer(ONE, "/healthz").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(took, Duration::ZERO);
    assert!(served.connections.by_age.len() <= CONNECTIONS);
}
