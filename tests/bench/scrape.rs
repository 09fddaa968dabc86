//! What a scrape costs: ms and bytes for 500 containers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sampler::publish::{Format, Publisher};
use sampler::source::Health;

use crate::machine;
use crate::node::Node;
use crate::report::Report;
use crate::rounds::estimate;

const CONTAINERS: usize = 500;
const REPEATS: usize = 21;
/// The daemon's own.
const WINDOW_SECONDS: f64 = 5.0;

/// Reports it for both formats.
pub fn run(report: &mut Report) -> Result<()> {
    let mut node = Node::new(CONTAINERS)?;
    let publisher = Publisher::new(2, CONTAINERS, Duration::from_secs_f64(WINDOW_SECONDS));
    for (format, name, what) in [
        (Format::OpenMetrics, "scrape.500", "text, classic buckets"),
        (Format::Protobuf, "scrape.500.protobuf", "protobuf, classic and native buckets"),
    ] {
        let (mut ms, mut bytes) = (Vec::new(), 0);
        for _ in 0..REPEATS {
            node.run(WINDOW_SECONDS);
            publisher.observe(node.snapshot.clone(), Health::default()).context("a window")?;
            let start = Instant::now();
            let body = publisher.scrape(format).context("a scrape")?;
            ms.push(start.elapsed().as_secs_f64() * 1e3);
            bytes = body.len();
        }
        let note =
            format!("{CONTAINERS} containers of a node that does not exist, {what}; {}", machine::load());
        report.estimate(name, "ms", estimate(&ms), note);
        report.exact(format!("{name}.bytes"), "bytes", bytes as f64, format!("uncompressed, {what}"));
    }
    Ok(())
}
