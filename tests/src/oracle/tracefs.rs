//! Records the kernel's own trace of a run: an instance of tracefs, its events and our probes, from start to stop.
//!
//! Nothing is read while the run lasts, so the oracle's only weight on it is the writing of the events.
//!
//! The clock is `perf`, `sched_clock_cpu()` of the own CPU: what the run-queue clocks, and so the kernel's own sums, are
//! made of. Where the TSC is trusted every clock would do. Where it is not (an emulated machine) that clock lags on a
//! CPU that stood still, and the others do not: on 6.1 the replayed wait was off from the kernel's by 0.1 % with
//! `perf`, 1 to 4 % with `global`, which also bends it to the order of the CPUs, and 6 to 10 % with `local`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::btf::{Btf, BtfError, KERNEL_BTF};
use super::cgroups::{self, CgroupsError};
use super::format::{Decoded, Decoder, FormatError, Kind};
use super::ring::{PageLayout, RingError};
use super::trace::{CgroupId, Cpu, Event, Membership, Tid, Trace, What};

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TracefsError {
    /// tracefs is not there.
    #[error("no tracefs at {0}: mount -t tracefs tracefs {0}")]
    NotMounted(&'static str),
    /// A file of tracefs or `/sys` refused.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The kernel has fields elsewhere than the probes need them.
    #[error("the probes cannot be placed")]
    Btf(#[from] BtfError),
    /// An event's format is not as expected.
    #[error("an event cannot be read")]
    Format(#[from] FormatError),
    /// The ring buffer's pages are not as expected, or lost events.
    #[error("the ring buffer of cpu {cpu} cannot be read")]
    Ring {
        /// Of which CPU.
        cpu: u32,
        /// The reason.
        #[source]
        source: RingError,
    },
    /// Events were lost: such a trace proves nothing.
    #[error("the trace of cpu {cpu} lost {events} events: give it bigger buffers")]
    Lost {
        /// On which CPU.
        cpu: u32,
        /// How many.
        events: u64,
    },
    /// A probe was passed unseen, as the CPU was in another probe at the time.
    #[error("the probe {probe} was missed {times} times: is there another kprobe on this machine?")]
    Missed {
        /// The probe.
        probe: &'static str,
        /// How often.
        times: u64,
    },
    /// The cgroups cannot be read.
    #[error("the cgroups of the run cannot be read")]
    Cgroups(#[from] CgroupsError),
}

/// How to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Memory for events per CPU, in KiB. A switch and its wakeup take about 120 bytes.
    pub buffer_kib_per_cpu: u32,
    /// Whether to place the probes. Only a kernel without kprobes should be asked to go without: then no wait is told
    /// as `quota`, clones straight into a cgroup are taken to start in their maker's, and a move of a process's leading
    /// thread alone is taken as a move of all.
    pub probes: bool,
}

impl Default for Recording {
    fn default() -> Self {
        Self { buffer_kib_per_cpu: 32 * 1024, probes: true }
    }
}

/// A trace that is being recorded; dropped, it leaves tracefs as it was.
#[derive(Debug)]
pub struct Tracing {
    instance: Instance,
    layout: PageLayout,
    decoder: Decoder,
    threads: BTreeMap<Tid, Membership>,
    cgroups: BTreeMap<CgroupId, String>,
}

const TRACEFS: &str = "/sys/kernel/tracing";
const INSTANCE: &str = "/sys/kernel/tracing/instances/loadline";
const PROBES: &str = "/sys/kernel/tracing/kprobe_events";

impl Tracing {
    /// Starts to record. What a killed recording left behind is removed first; there can be one at a time.
    ///
    /// Start it before what is to be judged: a tracepoint calls its listeners in the order in which they came, and the
    /// work of those before would be in the oracle's times.
    ///
    /// # Errors
    /// Without root, tracefs, cgroup v2, or (when probes are asked for) kprobes and BTF.
    pub fn start(recording: Recording) -> Result<Self, TracefsError> {
        if !Path::new(TRACEFS).join("events").exists() {
            return Err(TracefsError::NotMounted(TRACEFS));
        }
        let instance = Instance::make(recording.probes)?;
        let layout = PageLayout::parse(&read(&in_tracefs("events/header_page"))?)
            .map_err(|source| TracefsError::Ring { cpu: 0, source })?;
        let mut decoder = Decoder::default();
        let memberships = if recording.probes { &Kind::PROBES[..] } else { &Kind::WITHOUT_PROBES };
        let events: Vec<Kind> = Kind::ALWAYS.iter().chain(memberships).copied().collect();
        for &kind in events.iter().chain(&[Kind::Mark]) {
            decoder.learn(kind, &read(&in_tracefs(&format!("events/{}/format", kind.path())))?)?;
        }
        instance.set("buffer_size_kb", &recording.buffer_kib_per_cpu.to_string())?;
        instance.set("trace_clock", "perf")?;
        // Command names are not used, and remembering them would cost something at every switch.
        instance.set("trace_options", "norecord-cmd")?;
        for kind in events {
            instance.set(&format!("events/{}/enable", kind.path()), "1")?;
        }
        // Only now: a thread that moves or is made from here on is in the events, whichever the walk saw.
        let cgroups = cgroups::paths()?;
        let threads = cgroups::threads(&cgroups)?;
        Ok(Self { instance, layout, decoder, threads, cgroups })
    }

    /// Writes a mark into the trace, to find a moment of the run again: see [`Trace::between`].
    ///
    /// # Errors
    /// When tracefs refuses.
    pub fn mark(&self, label: &str) -> Result<(), TracefsError> {
        self.instance.set("trace_marker", label)
    }

    /// Stops and reads the trace.
    ///
    /// # Errors
    /// When events were lost or cannot be read.
    pub fn stop(mut self) -> Result<Trace, TracefsError> {
        self.instance.set("tracing_on", "0")?;
        self.instance.check_nothing_missed()?;
        let mut by_cpu = Vec::new();
        for cpu in self.instance.cpus()? {
            self.instance.check_nothing_lost(cpu)?;
            by_cpu.push(self.read_cpu(cpu)?);
        }
        let mut cgroups = cgroups::paths()?;
        cgroups.append(&mut self.cgroups);
        Ok(Trace { events: in_order(by_cpu), threads: std::mem::take(&mut self.threads), cgroups })
    }

    fn read_cpu(&mut self, cpu: Cpu) -> Result<Vec<Event>, TracefsError> {
        let path = self.instance.path.join(format!("per_cpu/cpu{}/trace_pipe_raw", cpu.0));
        let fail = |source| TracefsError::File { action: "read", path: path.clone(), source };
        let no_waiting = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let mut pages = OpenOptions::new().read(true).custom_flags(no_waiting).open(&path).map_err(fail)?;
        let mut page = vec![0; self.layout.bytes];
        let mut events = Vec::new();
        loop {
            match pages.read(&mut page) {
                Ok(0) => return Ok(events),
                Err(end) if end.kind() == io::ErrorKind::WouldBlock => return Ok(events),
                Err(source) => return Err(fail(source)),
                Ok(length) => {
                    let records = self.layout.records(&page[..length]);
                    for record in records.map_err(|source| TracefsError::Ring { cpu: cpu.0, source })? {
                        let what = match self.decoder.decode(cpu, record.data)? {
                            Decoded::What(what) => what,
                            Decoded::Attach(what, cgroup, path) => {
                                self.cgroups.insert(cgroup, path);
                                what
                            }
                            Decoded::NewCgroup(cgroup, path) => {
                                self.cgroups.insert(cgroup, path);
                                continue;
                            }
                            Decoded::Nothing => continue,
                        };
                        events.push(Event { at_ns: record.at_ns, what });
                    }
                }
            }
        }
    }
}

/// The instance's directory and our probes, both gone when this is dropped.
#[derive(Debug)]
struct Instance {
    path: PathBuf,
    probes: bool,
}

impl Instance {
    fn make(probes: bool) -> Result<Self, TracefsError> {
        let instance = Self { path: PathBuf::from(INSTANCE), probes };
        instance.remove();
        if probes {
            place_probes()?;
        }
        fs::create_dir(&instance.path).map_err(|source| TracefsError::File {
            action: "make",
            path: instance.path.clone(),
            source,
        })?;
        Ok(instance)
    }

    fn set(&self, file: &str, value: &str) -> Result<(), TracefsError> {
        write(&self.path.join(file), value)
    }

    fn cpus(&self) -> Result<Vec<Cpu>, TracefsError> {
        let path = self.path.join("per_cpu");
        let entries =
            fs::read_dir(&path).map_err(|source| TracefsError::File { action: "list", path, source })?;
        let number =
            |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok().map(Cpu);
        Ok(entries.flatten().filter_map(number).collect())
    }

    fn check_nothing_lost(&self, cpu: Cpu) -> Result<(), TracefsError> {
        let stats = read(&self.path.join(format!("per_cpu/cpu{}/stats", cpu.0)))?;
        match lost(&stats) {
            0 => Ok(()),
            events => Err(TracefsError::Lost { cpu: cpu.0, events }),
        }
    }

    fn check_nothing_missed(&self) -> Result<(), TracefsError> {
        let profile = in_tracefs("kprobe_profile");
        let profile = if self.probes { read(&profile)? } else { String::new() };
        match missed(&profile) {
            Some((probe, times)) => Err(TracefsError::Missed { probe, times }),
            None => Ok(()),
        }
    }

    fn remove(&self) {
        if !self.path.exists() && !in_tracefs("events/loadline").exists() {
            return;
        }
        // A probe can only be removed when no instance listens to it. Nobody is there to be told of an error: the next
        // start would meet it again, and say so.
        let _ = fs::remove_dir(&self.path);
        for kind in Kind::PROBES {
            let _ = write(Path::new(PROBES), &format!("-:{}", kind.path()));
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Places the probes. Each tells a cgroup by its id; the CPU is that of the run queue that is meant, which need not be
/// the one that the probe fires on.
///
/// All three functions run with interrupts off. A probe on one that does not would hide the others from us: a tick in
/// its handler that throttles a group passes our probe unseen.
fn place_probes() -> Result<(), TracefsError> {
    let path = Path::new(KERNEL_BTF);
    let bytes =
        fs::read(path).map_err(|source| TracefsError::File { action: "read", path: path.into(), source })?;
    let btf = Btf::parse(&bytes)?;
    let (kn, id) = (btf.offset_of("cgroup", "kn")?, btf.offset_of("kernfs_node", "id")?);
    let id_of = |cgroup: &str| format!("cgroup=+{id}(+{kn}({cgroup})):u64");
    let css = btf.offset_of("task_group", "css")? + btf.offset_of("cgroup_subsys_state", "cgroup")?;
    let group =
        format!("{} cpu=+{}($arg2):s32", id_of(&format!("+{css}($arg1)")), btf.offset_of("rq", "cpu")?);
    let member = format!(
        "thread=+{}($arg1):s32 {} to=$arg3:u64",
        btf.offset_of("task_struct", "pid")?,
        id_of(&format!("+{}($arg3)", btf.offset_of("css_set", "dfl_cgrp")?)),
    );
    for (kind, place) in [
        (Kind::Throttle, format!("tg_throttle_down {group}")),
        (Kind::Unthrottle, format!("tg_unthrottle_up {group}")),
        (Kind::Join, format!("css_set_move_task {member}")),
    ] {
        write(Path::new(PROBES), &format!("p:{} {place}", kind.path()))?;
    }
    Ok(())
}

/// The first of our probes that was missed, by `kprobe_profile`: lines of name, hits and misses.
fn missed(profile: &str) -> Option<(&'static str, u64)> {
    let probes = Kind::PROBES.map(Kind::path);
    profile.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (name, _hits, misses) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        let ours = probes.into_iter().find(|probe| probe.ends_with(&format!("/{name}")))?;
        (misses > 0).then_some((ours, misses))
    })
}

/// How many events a CPU's buffer lost, by its `stats`.
fn lost(stats: &str) -> u64 {
    let count = |line: &str| match line.split_once(": ") {
        Some(("overrun" | "commit overrun" | "dropped events", count)) => count.trim().parse::<u64>().ok(),
        _ => None,
    };
    stats.lines().filter_map(count).sum()
}

/// Merges the CPUs' events by time, each CPU's in its own order. At the same nanosecond a switch comes last, as what
/// made its thread runnable came before it.
fn in_order(by_cpu: Vec<Vec<Event>>) -> Vec<Event> {
    let mut heads: Vec<_> = by_cpu.into_iter().map(|events| events.into_iter().peekable()).collect();
    let mut merged = Vec::new();
    let rank = |event: &Event| (event.at_ns, matches!(event.what, What::Switch { .. }));
    loop {
        let firsts = heads.iter_mut().filter_map(|head| Some((rank(head.peek()?), head)));
        let Some((_, first)) = firsts.min_by_key(|(rank, _)| *rank) else { return merged };
        merged.extend(first.next());
    }
}

fn in_tracefs(file: &str) -> PathBuf {
    Path::new(TRACEFS).join(file)
}

/// Reads a file in large calls: `header_page` gives what fits into the first one, and then ends.
fn read(path: &Path) -> Result<String, TracefsError> {
    let fail = |source| TracefsError::File { action: "read", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(fail)?;
    let (mut text, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut chunk).map_err(fail)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            length => text.extend_from_slice(&chunk[..length]),
        }
    }
}

/// Writes without truncating and in one call, as tracefs wants it.
fn write(path: &Path, value: &str) -> Result<(), TracefsError> {
    let appended: io::Result<File> = OpenOptions::new().append(true).open(path);
    appended.and_then(|mut file| file.write_all(value.as_bytes())).map_err(|source| TracefsError::File {
        action: "write to",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_losing_events_counts() {
        let stats = "entries: 7\noverrun: 1\ncommit overrun: 2\nbytes: 9\noldest event ts:  5.1\ndropped events: 4\nread events: 0\n";
        assert_eq!(lost(stats), 7);
        assert_eq!(lost("entries: 7\noverrun: 0\n"), 0);
    }

    #[test]
    fn missed_probes_are_noticed() {
        let profile = |misses| format!("  other   3   9\n  throttle     12    0\n  join     7    {misses}\n");
        assert_eq!(missed(&profile(0)), None);
        assert_eq!(missed(&profile(2)), Some(("loadline/join", 2)));
    }

    #[test]
    fn cpus_are_merged_by_time_and_a_wakeup_goes_before_its_switch() {
        let switch = |at_ns, cpu| Event {
            at_ns,
            what: What::Switch {
                cpu: Cpu(cpu),
                prev: Tid(0),
                left: super::super::trace::Left::Runnable,
                next: Tid(1),
            },
        };
        let wakeup =
            |at_ns| Event { at_ns, what: What::Wakeup { thread: Tid(1), cpu: Cpu(0), first: false } };
        let merged = in_order(vec![vec![switch(5, 0), switch(9, 0)], vec![wakeup(5), switch(6, 1)]]);
        assert_eq!(merged, [wakeup(5), switch(5, 0), switch(6, 1), switch(9, 0)]);
    }
}
