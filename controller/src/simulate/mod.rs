//! Replays usage through the sizing code and through what others do, and judges all of them alike.
//!
//! A trace is one container on an unbounded node with no limit; its samples say what was used, and nothing else. The
//! allocation judged is the CPU request, and always the one that was decided before the sample.

pub mod baseline;
pub mod cluster;
pub mod machine;
pub mod one_node;
pub mod ours;
pub mod plot;
pub mod random;
pub mod rates;
pub mod recorded;
pub mod report;
pub mod score;
pub mod service;
pub mod service_report;
pub mod trace;
pub mod traced;

use crate::decide::units::{MilliCpu, Timestamp};

/// Something that sizes a container by what it used.
pub trait Sizer {
    /// The request for the time after this sample (CPU used, in cores, until `at`), given the one in force.
    fn next(&mut self, at: Timestamp, cores: f64, current: MilliCpu) -> MilliCpu;
}
