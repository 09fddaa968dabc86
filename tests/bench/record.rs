//! Recordings: how many bytes a container takes.

use anyhow::{Result, bail};
use sampler_common::recording::{Header, KEY_EVERY, Reader, Writer};

use crate::node::Node;
use crate::report::Report;

const CONTAINERS: usize = 500;
/// Whole runs from one key frame to the next.
const SNAPSHOTS: u64 = 4 * KEY_EVERY;
const HOUR_SECONDS: f64 = 3600.0;

/// Reports it for snapshots as the daemon takes them, and for close ones.
pub fn run(report: &mut Report) -> Result<()> {
    for (name, span_seconds) in [("record.bytes", 5.0), ("record.bytes.1s", 1.0)] {
        let mut node = Node::new(CONTAINERS)?;
        let mut bytes = Vec::new();
        let mut writer = Writer::create(&mut bytes, Header::default())?;
        for _ in 0..SNAPSHOTS {
            node.run(span_seconds);
            writer.append(&node.snapshot)?;
        }
        let last = Reader::open(&*bytes)?.last().transpose()?;
        if last.as_ref() != Some(&node.snapshot) {
            bail!("{name}: the last snapshot is not read as it was written");
        }
        let hours = SNAPSHOTS as f64 * span_seconds / HOUR_SECONDS;
        let note = format!(
            "{CONTAINERS} containers, 4 in 10 nearly idle and 2 busy (1,000 to 6,000 switch-ins a second), one snapshot \
             every {span_seconds} s; computed, not of a real node"
        );
        let value = bytes.len() as f64 / CONTAINERS as f64 / hours;
        report.exact(name, "bytes per container and hour", value, note);
    }
    Ok(())
}
