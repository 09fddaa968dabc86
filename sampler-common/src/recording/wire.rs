//! What the payload of a frame consists of, as protobuf messages: a [`Node`], then the [`Cgroup`]s that it announces,
//! each with its length before it.
//!
//! Everything is a difference against the snapshot before, or against [`Default`] in a key frame, and what has not
//! changed is left out, as protobuf leaves out what is 0. Counters are differences modulo 2⁶⁴, so that one that
//! went back is exact too. What is sparse and what gaps are says [`crate::sparse`]. Tags are never used again for something else.

/// What the recording is of: the payload of its header.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Header {
    #[prost(uint64, tag = "1")]
    pub started_unix_ns: u64,
    #[prost(uint64, tag = "2")]
    pub started_ns: u64,
    #[prost(uint64, tag = "3")]
    pub interval_ns: u64,
    #[prost(string, tag = "4")]
    pub kernel: String,
    #[prost(uint32, tag = "5")]
    pub cpus: u32,
    #[prost(string, optional, tag = "6")]
    pub node: Option<String>,
    #[prost(string, tag = "7")]
    pub sampler: String,
}

/// A snapshot but for its cgroups.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(uint64, tag = "2")]
    pub since_ns: u64,
    #[prost(uint64, tag = "3")]
    pub at_ns: u64,
    /// As it is now.
    #[prost(bool, tag = "4")]
    pub throttle_hooks: bool,
    #[prost(uint64, tag = "5")]
    pub switches: u64,
    /// Sparse, in the order of `Losses::named`.
    #[prost(uint64, repeated, tag = "6")]
    pub losses: Vec<u64>,
    #[prost(message, optional, tag = "7")]
    pub other: Option<Counters>,
    /// Gaps: the cgroups that the snapshot before had and this one has not.
    #[prost(uint64, repeated, tag = "8")]
    pub left_out: Vec<u64>,
    /// How many [`Cgroup`]s follow.
    #[prost(uint32, tag = "9")]
    pub changed: u32,
}

/// A cgroup that is new or has changed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Cgroup {
    /// A gap after the [`Cgroup`] before.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// As it is now.
    #[prost(bool, tag = "2")]
    pub removed: bool,
    #[prost(uint64, tag = "3")]
    pub since_ns: u64,
    #[prost(message, optional, tag = "4")]
    pub counters: Option<Counters>,
    /// All of it.
    #[prost(message, optional, tag = "5")]
    pub identity: Option<Identity>,
    /// All of them.
    #[prost(message, optional, tag = "6")]
    pub limits: Option<Limits>,
    #[prost(message, optional, tag = "7")]
    pub memory: Option<Memory>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Counters {
    /// Sparse, by bucket.
    #[prost(uint64, repeated, tag = "1")]
    pub latency: Vec<u64>,
    /// Growth of the sum less that of all causes: mostly the same.
    #[prost(sint64, tag = "2")]
    pub sum_beside_causes_ns: i64,
    /// Sparse, in the order of the fields of `Causes`.
    #[prost(uint64, repeated, tag = "3")]
    pub causes: Vec<u64>,
    /// Sparse, cause after cause.
    #[prost(uint64, repeated, tag = "4")]
    pub coarse: Vec<u64>,
    /// Pairs: an id as a gap, and how much longer it held the CPU.
    #[prost(uint64, repeated, tag = "5")]
    pub neighbors: Vec<u64>,
    /// Gaps: the neighbours that the snapshot before had and this one has not.
    #[prost(uint64, repeated, tag = "6")]
    pub forgotten: Vec<u64>,
    #[prost(uint64, tag = "7")]
    pub usage_ns: u64,
    /// Sparse, in the order of the fields of `Throttling`.
    #[prost(uint64, repeated, tag = "8")]
    pub throttling: Vec<u64>,
    /// Unknown is that hooks are unavailable.
    #[prost(message, optional, tag = "9")]
    pub durations: Option<Growth>,
    #[prost(message, optional, tag = "10")]
    pub memory_events: Option<Growth>,
    #[prost(message, optional, tag = "11")]
    pub pressure: Option<Growth>,
    /// From version 2 on.
    #[prost(message, optional, tag = "12")]
    pub unmet: Option<Growth>,
    /// From version 3 on.
    #[prost(message, optional, tag = "13")]
    pub cycles: Option<Growth>,
}

/// Change of counters that may not be known. Once known, they grow from 0.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Growth {
    #[prost(bool, tag = "1")]
    pub unknown: bool,
    /// Sparse.
    #[prost(uint64, repeated, tag = "2")]
    pub counts: Vec<u64>,
}

/// Change of gauges that may not be known. Once known, they change from 0.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Memory {
    #[prost(bool, tag = "1")]
    pub unknown: bool,
    #[prost(sint64, tag = "2")]
    pub current_bytes: i64,
    #[prost(sint64, tag = "3")]
    pub working_set_bytes: i64,
    #[prost(bool, tag = "4")]
    pub peak_unknown: bool,
    #[prost(sint64, tag = "5")]
    pub peak_bytes: i64,
    #[prost(sint64, tag = "6")]
    pub read_ns: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Limits {
    #[prost(message, optional, tag = "1")]
    pub cpu: Option<CpuLimit>,
    #[prost(uint64, optional, tag = "2")]
    pub cpu_weight: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub memory_max_bytes: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    pub memory_high_bytes: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct CpuLimit {
    #[prost(uint64, tag = "1")]
    pub quota_us: u64,
    #[prost(uint64, tag = "2")]
    pub period_us: u64,
    #[prost(bool, tag = "3")]
    pub of_ancestor: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Identity {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(oneof = "Owner", tags = "2, 3")]
    pub owner: Option<Owner>,
}

/// None is nobody's.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Owner {
    #[prost(message, tag = "2")]
    Container(Container),
    /// Name of a systemd unit.
    #[prost(string, tag = "3")]
    Unit(String),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    /// 0 is unknown; else the place in the order of [`crate::identity::Runtime`], from 1.
    #[prost(uint32, tag = "2")]
    pub runtime: u32,
    /// None is no pod.
    #[prost(string, optional, tag = "3")]
    pub pod_uid: Option<String>,
    /// 0 is unknown; else the place in the order of [`crate::identity::QosClass`], from 1.
    #[prost(uint32, tag = "4")]
    pub qos: u32,
    #[prost(message, optional, tag = "5")]
    pub names: Option<Names>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Names {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub pod: String,
    #[prost(string, optional, tag = "3")]
    pub container: Option<String>,
}
