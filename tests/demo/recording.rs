//! The demo as a recording: what `sampler record` would have written, with the names that an API server would have given.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use sampler::record::header;
use sampler_common::identity::{Names, Owner};
use sampler_common::recording::{AppendError, Writer};
use sampler_common::snapshot::{CgroupId, Snapshot};

/// Of all workloads.
const NAMESPACE: &str = "loadline-demo";

/// A recording in the making.
pub struct Recording {
    writer: Writer<File>,
}

impl Recording {
    /// In a new file, of a machine with so many CPUs, with a snapshot about every `interval`.
    pub fn begin(file: &Path, cpus: u32, interval: Duration) -> io::Result<Self> {
        let header = header(cpus, interval, Some("demo".to_owned()));
        Ok(Self { writer: Writer::create(File::create_new(file)?, header)? })
    }

    /// Appends a snapshot; `name` knows the workloads.
    pub fn append(
        &mut self,
        snapshot: &Snapshot,
        name: impl Fn(CgroupId) -> Option<&'static str>,
    ) -> Result<(), AppendError> {
        let mut snapshot = snapshot.clone();
        for (id, cgroup) in &mut snapshot.cgroups {
            if let (Some(name), Owner::Container(container)) = (name(*id), &mut cgroup.identity.owner) {
                let (namespace, name) = (NAMESPACE.to_owned(), name.to_owned());
                container.names = Some(Names { namespace, pod: name.clone(), container: Some(name) });
            }
        }
        self.writer.append(&snapshot).map(drop)
    }
}
