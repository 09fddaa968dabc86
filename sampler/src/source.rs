//! Where snapshots come from: the running kernel, or a recording.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aya::sys::{Stats, SyscallError, enable_stats};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use sampler_common::recording::{self, RecordingError};
use sampler_common::snapshot::Snapshot;
use thiserror::Error;

use crate::allocator;
use crate::args;
use crate::cgroup::layout::WAY_OUT;
use crate::cost;
use crate::kernel::load::{LoadError, Run, ThrottleHooks};
use crate::kernel::untested;
use crate::pods::{self, Access, Named, NamedError, NodeName};
use crate::privileges::{self, PrivilegeError};
use crate::read::{Reader, StartError, Tended, slots};

/// Why there are no snapshots, or no more.
#[derive(Debug, Error)]
pub enum SourceError {
    /// Privileges.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// The kernel cannot be measured.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The cost of a context switch cannot be measured.
    #[error("cannot measure what the programs cost")]
    Cost(#[source] io::Error),
    /// The kernel does not time programs.
    #[error("cannot have the kernel time its BPF programs, as --bpf-stats asks")]
    BpfStats(#[source] SyscallError),
    /// Nobody can look after slots.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// Names of pods are wanted, but nobody can be asked for them.
    #[error(transparent)]
    Names(#[from] NamedError),
    /// The recording cannot be opened.
    #[error("cannot open {file}")]
    Open {
        /// Its path.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The recording is none, or cannot be read.
    #[error("{file}")]
    Recording {
        /// Its path.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: RecordingError,
    },
}

impl SourceError {
    /// Whether it is the kernel or the privileges that do not allow it: nothing that trying again would change.
    pub fn is_not_allowed(&self) -> bool {
        match self {
            Self::Start(StartError::Load(LoadError::NoObject | LoadError::Missing { .. })) => false,
            Self::Privileges(_) | Self::Start(_) | Self::BpfStats(_) => true,
            Self::Cost(_) | Self::Thread(_) | Self::Names(_) | Self::Open { .. } | Self::Recording { .. } => {
                false
            }
        }
    }
}

/// Snapshots, one after the other. Dropping it detaches the programs.
pub enum Source {
    /// Of the running kernel.
    Live(Box<Live>),
    /// Of a recording.
    Replay(Box<Replay>),
}

impl Source {
    /// What the command line asks for.
    pub fn open(live: &args::Live, replay: &args::Replay, bpf_stats: bool) -> Result<Self, SourceError> {
        Ok(match &replay.file {
            Some(file) => Self::Replay(Box::new(Replay::open(file.clone(), live.node_name.as_ref())?)),
            None => Self::Live(Box::new(Live::start(live, bpf_stats)?)),
        })
    }

    /// Whether it is the running kernel.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }

    /// How many CPUs the machine has.
    pub fn cpus(&self) -> u32 {
        match self {
            Self::Live(live) => live.cpus,
            Self::Replay(replay) => replay.recording.header().cpus,
        }
    }

    /// How often there usually is a snapshot: of a recording, as it was made.
    pub fn interval(&self) -> Duration {
        match self {
            Self::Live(live) => live.interval,
            Self::Replay(replay) => Duration::from_nanos(replay.recording.header().interval_ns),
        }
    }

    /// When a snapshot was taken that has this on its clock (`CLOCK_MONOTONIC`, ns), in ns since 1970. Of a recording
    /// that goes over a boot of its machine it is right for the time before.
    pub fn unix_ns(&self, at_ns: u64) -> u64 {
        let (unix_ns, clock_ns) = match self {
            Self::Live(_) => clocks(),
            Self::Replay(replay) => {
                let header = replay.recording.header();
                (header.started_unix_ns, header.started_ns)
            }
        };
        unix_ns.saturating_add(at_ns).saturating_sub(clock_ns)
    }

    /// How long after the last snapshot the next one is due; nothing for the first. `None`: there is no next.
    pub fn due(&mut self) -> Result<Option<Duration>, SourceError> {
        match self {
            Self::Live(live) => Ok(Some(if live.begun { live.interval } else { Duration::ZERO })),
            Self::Replay(replay) => replay.due(),
        }
    }

    /// The next snapshot: of this moment, or the next of the recording, and `None` at its end. Whoever asks keeps
    /// the pace that [`Self::due`] says.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and a live one has no end")]
    pub fn next(&mut self) -> Result<Option<Snapshot>, SourceError> {
        match self {
            Self::Live(live) => Ok(Some(live.snapshot())),
            Self::Replay(replay) => replay.next(),
        }
    }

    /// How the measuring is doing.
    pub fn health(&self) -> Health {
        match self {
            Self::Live(live) => live.health(),
            Self::Replay(replay) => {
                Health { pods: replay.named.as_ref().map(Named::status), ..Health::default() }
            }
        }
    }
}

/// How the measuring itself is doing. A recording does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What there is room for.
    pub slots: Option<Slots>,
    /// CPU time that the programs add to a context switch, measured at start.
    pub switch_cost: Option<Duration>,
    /// How often each program ran and for how long, where the kernel times them.
    pub runs: Vec<Run>,
    /// The source of names, where there is one.
    pub pods: Option<pods::Status>,
}

/// How full the table of cgroups is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Those in use.
    pub used: usize,
    /// Those that there are.
    pub all: usize,
}

/// What measures the running kernel.
pub struct Live {
    reader: Tended,
    named: Option<Named>,
    cpus: u32,
    interval: Duration,
    /// Whether a snapshot has been taken: the first is due at once.
    begun: bool,
    /// How often a cgroup had found no slot when that was last said.
    slotless: u64,
    switch_cost: Duration,
    /// As long as it is open, the kernel times programs.
    timed: Option<std::os::fd::OwnedFd>,
}

impl Live {
    /// Measures from now on. The calling thread has no privileges afterwards; this is to be called before others
    /// are started, which have what the one has that starts them.
    fn start(arguments: &args::Live, bpf_stats: bool) -> Result<Self, SourceError> {
        // Now, since it may be for those alone who have privileges.
        let access = open_access(arguments.node_name.as_ref())?;
        privileges::check(bpf_stats)?;
        let without = cost::switch_time().map_err(SourceError::Cost)?;
        let reader = Reader::start(arguments.start())?;
        let with = cost::switch_time().map_err(SourceError::Cost)?;
        let switch_cost = with.saturating_sub(without);
        let timed =
            bpf_stats.then(|| enable_stats(Stats::RunTime)).transpose().map_err(SourceError::BpfStats)?;
        let kept = privileges::drop_all(reader.programs())?;
        tracing::info!(
            host = %reader.surroundings(),
            cgroups = %reader.layout().version,
            key = reader.key().controller(),
            cpus_possible = reader.programs().cpus.len(),
            slots = reader.programs().slots.len(),
            slots_mib = reader.programs().slots_mib(),
            switch_cost_ns = switch_cost.as_nanos() as u64,
            privileges_kept = %kept,
            "measuring"
        );
        if let ThrottleHooks::Unavailable(why) = &reader.programs().throttle_hooks {
            let why = why as &dyn std::error::Error;
            tracing::warn!(why, "without throttle hooks: the waits of throttled containers are unknown");
        }
        let untested = untested::of_running_kernel().join(", ");
        if !untested.is_empty() {
            tracing::warn!(
                untested,
                "not tested on such a machine: please hold the figures against another tool's"
            );
        }
        let lost = reader.layout().lost().join("; ");
        if !lost.is_empty() {
            tracing::warn!(lost, "with cgroup v1 not everything can be measured; {WAY_OUT}");
        }
        let named = access.map(|(access, node)| Named::start(access, node)).transpose()?;
        // The kernel's types have been read and are not needed any more.
        allocator::give_back();
        let interval = arguments.interval;
        let reader = Tended::new(reader).map_err(SourceError::Thread)?;
        Ok(Self { reader, named, cpus: cpus(), interval, begun: false, slotless: 0, switch_cost, timed })
    }

    fn snapshot(&mut self) -> Snapshot {
        self.begun = true;
        let mut snapshot = self.reader.reader().snapshot();
        if let Some(named) = &mut self.named {
            named.name(&mut snapshot);
        }
        self.say_if_slots_run_out(snapshot.losses.slots_exhausted);
        snapshot
    }

    /// The first time, and whenever it has become twice as bad: not in each window of a crowded machine.
    fn say_if_slots_run_out(&mut self, slotless: u64) {
        if slotless > 2 * self.slotless {
            self.slotless = slotless;
            let slots = self.reader.reader().programs().slots.len();
            tracing::warn!(
                times = slotless,
                slots,
                "cgroups found no slot of their own and are counted together (container=\"_other\"): start the sampler \
                 with more of them, `--slots {}`",
                (2 * slots).min(sampler_common::abi::TABLE as usize)
            );
        }
    }

    fn health(&self) -> Health {
        let reader = self.reader.reader();
        let records = &reader.programs().slots;
        let used = (1..records.len()).filter(|slot| slots::owner(records, *slot).is_some()).count();
        Health {
            slots: Some(Slots { used, all: records.len() - 1 }),
            switch_cost: Some(self.switch_cost),
            runs: if self.timed.is_some() { reader.programs().runs() } else { Vec::new() },
            pods: self.named.as_ref().map(Named::status),
        }
    }
}

/// How to ask for the names of a node's pods, if it has a name itself.
fn open_access(node: Option<&NodeName>) -> Result<Option<(Access, &NodeName)>, NamedError> {
    node.map(|node| Ok((Access::open()?, node))).transpose()
}

/// This moment, in ns since 1970 and on the clock of snapshots.
pub fn clocks() -> (u64, u64) {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let clock = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    (unix.as_nanos() as u64, clock.as_nanos() as u64)
}

/// CPUs that are online, also those that this process may not use.
fn cpus() -> u32 {
    let online = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    online.and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or(1)
}

/// What reads a recording.
pub struct Replay {
    file: PathBuf,
    recording: recording::Reader<BufReader<File>>,
    /// When the last snapshot was taken, in which life of the reader.
    last: Option<(u64, u64)>,
    /// One that has been read and not given yet.
    ahead: Option<Snapshot>,
    /// Who names the containers of which the recording has no names.
    named: Option<Named>,
}

impl Replay {
    fn open(file: PathBuf, node: Option<&NodeName>) -> Result<Self, SourceError> {
        let access = open_access(node)?;
        let opened = File::open(&file).map_err(|source| SourceError::Open { file: file.clone(), source })?;
        match recording::Reader::open(BufReader::new(opened)) {
            Ok(recording) => {
                let named = access.map(|(access, node)| Named::start(access, node)).transpose()?;
                Ok(Self { file, recording, last: None, ahead: None, named })
            }
            Err(source) => Err(SourceError::Recording { file, source }),
        }
    }

    /// Reads on where nothing is ahead. What is damaged is said and left out.
    fn look_ahead(&mut self) -> Result<(), SourceError> {
        while self.ahead.is_none() {
            match self.recording.next() {
                None => break,
                Some(Ok(snapshot)) => self.ahead = Some(snapshot),
                Some(Err(RecordingError::Io(error))) => {
                    let source = RecordingError::Io(error);
                    return Err(SourceError::Recording { file: self.file.clone(), source });
                }
                Some(Err(error)) => tracing::warn!(file = %self.file.display(), "{error}"),
            }
        }
        Ok(())
    }

    fn due(&mut self) -> Result<Option<Duration>, SourceError> {
        self.look_ahead()?;
        let usual_ns = self.recording.header().interval_ns;
        Ok(self.ahead.as_ref().map(|ahead| match self.last {
            None => Duration::ZERO,
            Some((epoch, at_ns)) if epoch == ahead.epoch => {
                Duration::from_nanos(ahead.at_ns.saturating_sub(at_ns))
            }
            // How long nothing was recorded is not known: the clock may be of another boot.
            Some(_) => Duration::from_nanos(usual_ns),
        }))
    }

    fn next(&mut self) -> Result<Option<Snapshot>, SourceError> {
        self.look_ahead()?;
        let mut next = self.ahead.take();
        if let Some(snapshot) = &mut next {
            if let Some(named) = &mut self.named {
                named.name(snapshot);
            }
            self.last = Some((snapshot.epoch, snapshot.at_ns));
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use sampler_common::recording::{Header, Writer};

    use super::*;

    #[test]
    fn a_recording_has_the_pace_and_the_time_at_which_it_was_made() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let header = Header {
            interval_ns: 60_000_000_000,
            started_unix_ns: 1_790_000_000_000_000_000,
            started_ns: 5_000_000_000,
            ..Header::default()
        };
        Writer::create(&mut file, header).unwrap();
        let path = file.path().to_str().unwrap();
        let line = ["sampler", "serve", "--replay", path];
        let args::Command::Serve(serve) = args::Arguments::parse_from(line).command else { panic!() };
        let source = Source::open(&serve.live, &serve.replay, false).unwrap();
        assert_eq!(source.interval(), Duration::from_secs(60));
        assert_eq!(source.unix_ns(7_000_000_001), 1_790_000_002_000_000_001);
    }
}
