//! Loads and attaches the programs, in the order in which nothing is missed.

use std::io;
use std::os::fd::AsFd as _;
use std::ptr::write_volatile;
use std::time::Duration;

use aya::maps::{Map, MapData, MapError, Queue, RingBuf};
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::{BtfTracePoint, FEntry, FExit, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader, Pod};
use sampler_common::abi::{Baseline, Cpu, CssEntry, CycleSums, Kernel, Row, Slot, SlotRecord, TABLE};
use sampler_common::throttle::Throttle;
use thiserror::Error;

use super::btf::{Btf, BtfError};
use super::layout::{self, Key};
use super::mapped::Mapped;
use super::object::OBJECT;

/// Why the programs could not be loaded or attached.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The binary was built before the BPF object.
    #[error("this build holds no BPF programs: run `cargo xtask build-ebpf`, then build again")]
    NoObject,
    /// The kernel's type information lacks something.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// aya, too, needs the kernel's type information, and its reader refused it.
    #[error("the kernel's type information cannot be used")]
    AyaBtf(#[source] aya::BtfError),
    /// The number of CPUs cannot be told.
    #[error("cannot tell the number of CPUs from {path}")]
    Cpus {
        /// The file.
        path: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// More CPUs or slots than a map can have entries.
    #[error(
        "{cpus} CPUs with {slots} slots each are more than a BPF map can hold: lower the number of slots"
    )]
    TooLarge {
        /// Possible CPUs.
        cpus: u32,
        /// Slots asked for.
        slots: u32,
    },
    /// The kernel does not allow this user to load programs.
    #[error(
        "not permitted to {what}: run as root, or with the capabilities CAP_BPF and CAP_PERFMON \
         (kernel lockdown in confidentiality mode forbids it even then)"
    )]
    NotPermitted {
        /// What was refused.
        what: &'static str,
        /// What the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The object and this code do not fit.
    #[error("the BPF object has no {kind} {name}: build it again with `cargo xtask build-ebpf`")]
    Missing {
        /// Map or program.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// The kernel refused the maps.
    #[error("the kernel refused the BPF maps")]
    Maps(#[source] EbpfError),
    /// A map could not be filled or mapped.
    #[error("map {name} cannot be used")]
    Map {
        /// Its name.
        name: &'static str,
        /// What the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel does not let a function be hooked.
    #[error(
        "the kernel does not let {name} be hooked: it needs CONFIG_FUNCTION_TRACER=y and CONFIG_BPF_JIT=y, and room \
         for one more program on that function (the kernel has some 36 places)"
    )]
    Hook {
        /// The program for it.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: Refusal,
    },
    /// The kernel refused a program: a kernel without BPF tracing, or one that the verifier's rules differ on.
    #[error("the kernel refused program {name}: it needs Linux 5.12 or later with CONFIG_BPF_EVENTS=y")]
    Program {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: Refusal,
    },
}

/// What the kernel said of a program that it refused.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The verifier's last words: its whole log is a line for each instruction that it went through.
    #[error("{error}: {last_words}")]
    Verifier {
        /// What the system call returned.
        error: io::Error,
        /// The line before the statistics.
        last_words: String,
    },
    /// Anything else.
    #[error(transparent)]
    Other(ProgramError),
}

impl From<ProgramError> for Refusal {
    fn from(error: ProgramError) -> Self {
        const STATISTICS: [&str; 4] = ["verification time", "stack depth", "processed ", "insns processed"];
        let ProgramError::LoadError { io_error, verifier_log } = error else { return Self::Other(error) };
        let log = verifier_log.to_string();
        let said = |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|begin| line.starts_with(begin));
        let last_words = log.lines().rev().map(str::trim).find(said).unwrap_or("no reason given").to_owned();
        Self::Verifier { error: io_error, last_words }
    }
}

/// What is chosen at load.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The controller that rows are keyed by.
    pub key: Key,
    /// The hierarchy that this controller is in: 0 for cgroup v2.
    pub hierarchy_id: u32,
    /// Slots, a power of two; one of them is for what has none of its own. `None`: see [`default_slots`].
    pub slots: Option<u32>,
}

/// Slots for a number of CPUs: 1024, and 512 where those would take more than 64 MiB. A node runs at most
/// some 110 pods of two or three cgroups by default.
pub fn default_slots(cpus: u32) -> u32 {
    if u64::from(cpus) * 1024 * BYTES_PER_CPU_AND_SLOT as u64 <= 64 << 20 { 1024 } else { 512 }
}

/// Kernel memory that a slot takes on each CPU.
pub const BYTES_PER_CPU_AND_SLOT: usize = size_of::<Row>() + size_of::<Throttle>();

/// Whether the functions that throttle and unthrottle are hooked, and if not, why not.
#[derive(Debug)]
pub enum ThrottleHooks {
    /// They are: `quota` is told from the other causes.
    Attached,
    /// They are not: a throttled window's wait is `unknown`.
    Unavailable(LoadError),
}

/// What a program has cost, as the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its name.
    pub program: String,
    /// How often it ran.
    pub count: u64,
    /// For how long in all.
    pub time: Duration,
}

/// The attached programs and their maps. Dropping it detaches them.
pub struct Programs {
    /// Keeps the programs attached.
    bpf: Ebpf,
    /// The attachments of [`COUNTING`], while they count.
    counting: Vec<(&'static str, BtfTracePointLinkId)>,
    /// `[cpu][slot]`
    pub rows: Mapped<Row>,
    /// `[cpu][css id % slots]`
    pub throttles: Mapped<Throttle>,
    /// By CPU.
    pub cpus: Mapped<Cpu>,
    /// See [`Programs::baselines`].
    baselines: MapData,
    /// By css id.
    pub csses: Mapped<CssEntry>,
    /// By slot.
    pub cycles: Mapped<CycleSums>,
    /// By slot.
    pub slots: Mapped<SlotRecord>,
    /// Slots to be given out.
    pub free_slots: Queue<MapData, Slot>,
    /// Names of cgroups as they are made, which are removed, and which have a process killed for want of memory.
    pub cgroup_events: RingBuf<MapData>,
    /// How many such events did not fit, by CPU.
    pub cgroup_events_lost: Mapped<u64>,
    /// Whether `quota` can be told.
    pub throttle_hooks: ThrottleHooks,
}

/// What is known of threads.
const BASELINES: &str = "BASELINES";

/// [`Kernel`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Constants(Kernel);

// SAFETY: a repr(C) structure of u32s without padding.
unsafe impl Pod for Constants {}

impl Programs {
    /// Kernel memory that the slots take on all possible CPUs, in MiB.
    pub fn slots_mib(&self) -> usize {
        (self.cpus.len() * self.slots.len() * BYTES_PER_CPU_AND_SLOT) >> 20
    }

    /// What is known of threads, by pid, modulo its size. For the self-check and tests: it is mapped for as long as
    /// somebody looks, since its 4 MiB count as memory of this process, too, while it is.
    pub fn baselines(&self) -> Result<Mapped<Baseline>, LoadError> {
        let fd = self.baselines.fd().as_fd().try_clone_to_owned().map_err(map(BASELINES))?;
        let again = MapData::from_fd(fd).map_err(map(BASELINES))?;
        Mapped::new(again, TABLE as usize).map_err(map(BASELINES))
    }

    /// Loads everything and attaches what watches cgroups and throttles, but not `sched_switch`: between the
    /// two the caller looks at the cgroups that exist.
    pub fn load(options: Options) -> Result<Self, LoadError> {
        let btf = Btf::of_running_kernel()?;
        let slots = match options.slots {
            Some(slots) => slots,
            None => default_slots(possible_cpus()?),
        };
        Self::load_with(layout::of(&btf, options.key, options.hierarchy_id, slots)?)
    }

    /// [`Self::load`] with what somebody says of the running kernel. Where that is wrong, the verifier refuses the
    /// programs, or [`super::self_check`] finds it out.
    pub fn load_with(kernel: Kernel) -> Result<Self, LoadError> {
        let object = OBJECT.ok_or(LoadError::NoObject)?;
        let (cpus, slots) = (possible_cpus()?, kernel.slots);
        let rows = cpus.checked_mul(slots).filter(|_| slots.is_power_of_two() && slots <= TABLE);
        let rows = rows.ok_or(LoadError::TooLarge { cpus, slots })?;
        let bpf = EbpfLoader::new()
            .override_global("KERNEL", &Constants(kernel), true)
            .map_max_entries("ROWS", rows)
            .map_max_entries("THROTTLES", rows)
            .map_max_entries("CPUS", cpus)
            .map_max_entries("CYCLES", slots)
            .map_max_entries("CGROUP_EVENTS_LOST", cpus)
            .map_max_entries("SLOTS", slots)
            .map_max_entries("FREE_SLOTS", slots)
            .load(object)
            .map_err(maps_refused)?;
        Self::attach(bpf, cpus as usize, slots)
    }

    fn attach(mut bpf: Ebpf, cpus: usize, slots: u32) -> Result<Self, LoadError> {
        let rows = cpus * slots as usize;
        let kernel_btf = aya::Btf::from_sys_fs().map_err(LoadError::AyaBtf)?;
        let mut free_slots = Queue::try_from(take(&mut bpf, "FREE_SLOTS")?).map_err(map("FREE_SLOTS"))?;
        for slot in 1..slots {
            free_slots.push(slot, 0).map_err(map("FREE_SLOTS"))?;
        }
        let mut programs = Self {
            rows: mapped(&mut bpf, "ROWS", rows)?,
            throttles: mapped(&mut bpf, "THROTTLES", rows)?,
            cpus: mapped(&mut bpf, "CPUS", cpus)?,
            baselines: array(&mut bpf, BASELINES)?,
            csses: mapped(&mut bpf, "CSSES", TABLE as usize)?,
            cycles: mapped(&mut bpf, "CYCLES", slots as usize)?,
            slots: mapped(&mut bpf, "SLOTS", slots as usize)?,
            free_slots,
            cgroup_events: RingBuf::try_from(take(&mut bpf, "CGROUP_EVENTS")?)
                .map_err(map("CGROUP_EVENTS"))?,
            cgroup_events_lost: mapped(&mut bpf, "CGROUP_EVENTS_LOST", cpus)?,
            throttle_hooks: ThrottleHooks::Attached,
            bpf,
            counting: Vec::new(),
        };
        programs.tracepoint("cgroup_mkdir", &kernel_btf)?;
        programs.tracepoint("cgroup_rmdir", &kernel_btf)?;
        programs.tracepoint("sched_process_exit", &kernel_btf)?;
        if let Err(error) = programs.hook_throttling(&kernel_btf) {
            programs.unhook_throttling();
            programs.throttle_hooks = ThrottleHooks::Unavailable(error);
        }
        for name in COUNTING {
            programs.load_tracepoint(name, &kernel_btf)?;
        }
        Ok(programs)
    }

    /// Starts to count.
    pub fn start(&mut self) -> Result<(), LoadError> {
        for name in COUNTING {
            let link = self.program::<BtfTracePoint>(name)?.attach().map_err(refused(name))?;
            self.counting.push((name, link));
        }
        Ok(())
    }

    /// Stops counting until the next [`Self::start`]. The counters stay. What happens meanwhile is charged to whoever
    /// ran and waited last: this is for measuring what the programs cost.
    pub fn stop(&mut self) -> Result<(), LoadError> {
        while let Some((name, link)) = self.counting.pop() {
            self.program::<BtfTracePoint>(name)?.detach(link).map_err(refused(name))?;
        }
        Ok(())
    }

    /// The program `sched_switch` as the kernel describes it.
    pub fn switch_info(&self) -> Option<aya::programs::ProgramInfo> {
        self.bpf.program("sched_switch")?.info().ok()
    }

    /// How often each program ran and for how long, while the kernel times them; else zeros.
    pub fn runs(&self) -> Vec<Run> {
        let runs = self.bpf.programs().filter_map(|(name, program)| {
            let info = program.info().ok()?;
            Some(Run { program: name.to_owned(), count: info.run_count(), time: info.run_time() })
        });
        runs.collect()
    }

    fn tracepoint(&mut self, name: &'static str, btf: &aya::Btf) -> Result<(), LoadError> {
        self.load_tracepoint(name, btf)?;
        self.program::<BtfTracePoint>(name)?.attach().map_err(refused(name))?;
        Ok(())
    }

    fn load_tracepoint(&mut self, name: &'static str, btf: &aya::Btf) -> Result<(), LoadError> {
        self.program::<BtfTracePoint>(name)?.load(name, btf).map_err(refused(name))
    }

    fn hook_throttling(&mut self, btf: &aya::Btf) -> Result<(), LoadError> {
        let refused = |name| move |error: ProgramError| LoadError::Hook { name, source: error.into() };
        for name in FENTRIES {
            self.program::<FEntry>(name)?.load(name, btf).map_err(refused(name))?;
        }
        let exit = self.program::<FExit>(FEXIT)?;
        exit.load("unthrottle_cfs_rq", btf).and_then(|()| exit.attach()).map_err(refused(FEXIT))?;
        for name in FENTRIES {
            self.program::<FEntry>(name)?.attach().map_err(refused(name))?;
        }
        Ok(())
    }

    /// Undoes a [`Self::hook_throttling`] that went half-way: half of the hooks would tell half-truths. So would what they
    /// have seen until then: a group of which only the beginning of a throttle was seen would seem to be held up for good.
    fn unhook_throttling(&mut self) {
        for name in FENTRIES {
            if let Ok(program) = self.program::<FEntry>(name) {
                // A program that was never loaded cannot be unloaded, and need not be.
                let _ = program.unload();
            }
        }
        if let Ok(program) = self.program::<FExit>(FEXIT) {
            // As above.
            let _ = program.unload();
        }
        for index in 0..self.throttles.len() {
            let throttle = self.throttles.at(index);
            // SAFETY: a word of a map value that nobody writes any more.
            unsafe { write_volatile(&raw mut (*throttle).depth, 0) };
        }
        for index in 0..self.cpus.len() {
            let cpu = self.cpus.at(index);
            // SAFETY: as above.
            unsafe {
                write_volatile(&raw mut (*cpu).held_up, 0);
                write_volatile(&raw mut (*cpu).last_unthrottle_ns, 0);
            }
        }
    }

    fn program<'a, P>(&'a mut self, name: &'static str) -> Result<&'a mut P, LoadError>
    where
        &'a mut P: TryFrom<&'a mut aya::programs::Program>,
    {
        self.bpf
            .program_mut(name)
            .and_then(|program| program.try_into().ok())
            .ok_or(LoadError::Missing { kind: "program", name })
    }
}

fn possible_cpus() -> Result<u32, LoadError> {
    let cpus = aya::util::nr_cpus().map_err(|(path, source)| LoadError::Cpus { path, source })?;
    Ok(u32::try_from(cpus).unwrap_or(u32::MAX))
}

/// What counts. A migration between the two attachments has a baseline only after the first.
const COUNTING: [&str; 2] = ["sched_switch", "sched_migrate_task"];
/// In the order in which they are attached: the end of a throttle before its beginning, since an end without a beginning is
/// one that began before, but a beginning whose end was missed would hold the group up for good.
const FENTRIES: [&str; 3] = ["unthrottle_cfs_rq", "tg_unthrottle_up", "tg_throttle_down"];
const FEXIT: &str = "unthrottle_cfs_rq_exit";

fn take(bpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    bpf.take_map(name).ok_or(LoadError::Missing { kind: "map", name })
}

fn mapped<T: super::mapped::Plain>(
    bpf: &mut Ebpf,
    name: &'static str,
    entries: usize,
) -> Result<Mapped<T>, LoadError> {
    Mapped::new(array(bpf, name)?, entries).map_err(map(name))
}

fn array(bpf: &mut Ebpf, name: &'static str) -> Result<MapData, LoadError> {
    match take(bpf, name)? {
        Map::Array(data) => Ok(data),
        _ => Err(LoadError::Missing { kind: "array map", name }),
    }
}

fn map<E: std::error::Error + Send + Sync + 'static>(name: &'static str) -> impl Fn(E) -> LoadError {
    move |source| LoadError::Map { name, source: Box::new(source) }
}

fn maps_refused(error: EbpfError) -> LoadError {
    match &error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) if not_permitted(io_error) => {
            LoadError::NotPermitted { what: "create BPF maps", source: Box::new(error) }
        }
        _ => LoadError::Maps(error),
    }
}

fn refused(name: &'static str) -> impl Fn(ProgramError) -> LoadError {
    move |error| match &error {
        ProgramError::LoadError { io_error, .. } if not_permitted(io_error) => {
            LoadError::NotPermitted { what: "load tracing programs", source: Box::new(Refusal::from(error)) }
        }
        _ => LoadError::Program { name, source: error.into() },
    }
}

/// EPERM is a missing capability. EACCES, which std calls permission denied too, is the verifier's no.
fn not_permitted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::EPERM as i32)
}
