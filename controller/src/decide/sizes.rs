//! What a container is given: requests and limits of CPU and memory.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::units::{Bytes, MilliCpu};

/// Requests and limits of one container. `None` is not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sizes {
    /// CPU request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_request: Option<MilliCpu>,
    /// CPU limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<MilliCpu>,
    /// Memory request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_request: Option<Bytes>,
    /// Memory limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<Bytes>,
}

/// A resource that is sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Resource {
    /// CPU.
    Cpu,
    /// Memory.
    Memory,
}

impl Resource {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Memory];
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "CPU",
            Self::Memory => "memory",
        })
    }
}

/// Which way something moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Nothing changed.
    Same,
    /// Something grew and nothing shrank.
    Up,
    /// Something shrank and nothing grew.
    Down,
    /// Both.
    Both,
}

impl Sizes {
    /// The CPU request, or 0.
    pub fn cpu(&self) -> MilliCpu {
        self.cpu_request.unwrap_or_default()
    }

    /// The memory request, or 0.
    pub fn memory(&self) -> Bytes {
        self.memory_request.unwrap_or_default()
    }

    /// The larger of each; what is not set in one is as in the other.
    pub fn max(&self, other: &Self) -> Self {
        Self {
            cpu_request: self.cpu_request.max(other.cpu_request),
            cpu_limit: self.cpu_limit.max(other.cpu_limit),
            memory_request: self.memory_request.max(other.memory_request),
            memory_limit: self.memory_limit.max(other.memory_limit),
        }
    }

    /// These, with one resource's request and limit as in `other`.
    pub fn with(&self, resource: Resource, other: &Self) -> Self {
        match resource {
            Resource::Cpu => Self { cpu_request: other.cpu_request, cpu_limit: other.cpu_limit, ..*self },
            Resource::Memory => {
                Self { memory_request: other.memory_request, memory_limit: other.memory_limit, ..*self }
            }
        }
    }

    /// Request and limit of a resource, in milli-CPU or bytes.
    pub fn pair(&self, resource: Resource) -> (Option<u64>, Option<u64>) {
        match resource {
            Resource::Cpu => (self.cpu_request.map(|size| size.0), self.cpu_limit.map(|size| size.0)),
            Resource::Memory => {
                (self.memory_request.map(|size| size.0), self.memory_limit.map(|size| size.0))
            }
        }
    }

    /// These, with one resource's request and limit, in milli-CPU or bytes.
    pub fn with_pair(&self, resource: Resource, (request, limit): (Option<u64>, Option<u64>)) -> Self {
        match resource {
            Resource::Cpu => {
                Self { cpu_request: request.map(MilliCpu), cpu_limit: limit.map(MilliCpu), ..*self }
            }
            Resource::Memory => {
                Self { memory_request: request.map(Bytes), memory_limit: limit.map(Bytes), ..*self }
            }
        }
    }

    /// Whether a resource is sized as in `other`.
    pub fn same(&self, resource: Resource, other: &Self) -> bool {
        self.with(resource, other) == *self
    }

    /// Which way this is from `from`: a limit that is taken away counts as grown, one that is set as shrunk.
    pub fn direction(&self, from: &Self) -> Direction {
        let limit = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        let pairs = [
            (self.cpu().0, from.cpu().0),
            (self.memory().0, from.memory().0),
            (limit(self.cpu_limit.map(|limit| limit.0)), limit(from.cpu_limit.map(|limit| limit.0))),
            (limit(self.memory_limit.map(|limit| limit.0)), limit(from.memory_limit.map(|limit| limit.0))),
        ];
        match (pairs.iter().any(|(to, from)| to > from), pairs.iter().any(|(to, from)| to < from)) {
            (false, false) => Direction::Same,
            (true, false) => Direction::Up,
            (false, true) => Direction::Down,
            (true, true) => Direction::Both,
        }
    }

    /// `self` where it is larger than `floor` in the given resource, `floor` where not: what is left of a change that
    /// may only add.
    pub fn not_below(&self, floor: &Self) -> Self {
        let limit_cpu = self.cpu_limit.map(|limit| floor.cpu_limit.map_or(limit, |floor| limit.max(floor)));
        let limit_memory =
            self.memory_limit.map(|limit| floor.memory_limit.map_or(limit, |floor| limit.max(floor)));
        Self {
            cpu_request: self.cpu_request.max(floor.cpu_request),
            memory_request: self.memory_request.max(floor.memory_request),
            // What had no limit keeps none.
            cpu_limit: if floor.cpu_limit.is_none() { None } else { limit_cpu },
            memory_limit: if floor.memory_limit.is_none() { None } else { limit_memory },
        }
    }

    /// The smaller of each of `self` and `ceiling`: what is left of a change that may only take away.
    pub fn not_above(&self, ceiling: &Self) -> Self {
        let smaller = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, None) => one,
            (None, other) => other,
        };
        Self {
            cpu_request: self.cpu_request.min(ceiling.cpu_request),
            memory_request: self.memory_request.min(ceiling.memory_request),
            cpu_limit: smaller(self.cpu_limit.map(|l| l.0), ceiling.cpu_limit.map(|l| l.0)).map(MilliCpu),
            memory_limit: smaller(self.memory_limit.map(|l| l.0), ceiling.memory_limit.map(|l| l.0))
                .map(Bytes),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu_request, cpu_limit, memory_request, memory_limit } = self;
        f.write_str("cpu ")?;
        pair(f, cpu_request, cpu_limit)?;
        f.write_str(", memory ")?;
        pair(f, memory_request, memory_limit)
    }
}

/// Request / limit.
fn pair<T: fmt::Display>(f: &mut fmt::Formatter<'_>, request: &Option<T>, limit: &Option<T>) -> fmt::Result {
    let mut one = |size: &Option<T>| match size {
        Some(size) => size.fmt(f),
        None => f.write_str("–"),
    };
    one(request)?;
    f.write_str("/")?;
    match limit {
        Some(limit) => limit.fmt(f),
        None => f.write_str("–"),
    }
}

/// What changed, and only that: `cpu request 100m → 250m`.
pub struct Difference<'a>(pub &'a Sizes, pub &'a Sizes);

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(from, to) = self;
        let text = |size: Option<String>| size.unwrap_or_else(|| "none".into());
        let cpu = |size: Option<MilliCpu>| text(size.map(|size| size.to_string()));
        let memory = |size: Option<Bytes>| text(size.map(|size| size.to_string()));
        let values = [
            ("cpu request", cpu(from.cpu_request), cpu(to.cpu_request)),
            ("cpu limit", cpu(from.cpu_limit), cpu(to.cpu_limit)),
            ("memory request", memory(from.memory_request), memory(to.memory_request)),
            ("memory limit", memory(from.memory_limit), memory(to.memory_limit)),
        ];
        let changed: Vec<_> = values
            .iter()
            .filter(|(_, from, to)| from != to)
            .map(|(name, from, to)| format!("{name} {from} → {to}"))
            .collect();
        f.write_str(if changed.is_empty() { "nothing".to_owned() } else { changed.join(", ") }.as_str())
    }
}
