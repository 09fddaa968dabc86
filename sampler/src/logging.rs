//! Logs: to standard error, as text for people or as JSON for machines.

use std::io;

use tracing_subscriber::fmt;

use crate::args::{Log, LogFormat};

/// From now on everything that is logged is written. To be called once.
pub fn start(log: &Log) {
    let lines = fmt().with_max_level(log.log_level).with_writer(io::stderr).with_target(false);
    match log.log_format {
        LogFormat::Text => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
