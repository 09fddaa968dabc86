//! What is compared: nothing, a program that does nothing, Loadline's, and bcc's runqlat.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::programs::{BtfTracePoint, loaded_links, loaded_programs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sampler::kernel::layout::Key;
use sampler::kernel::load::{Options, Programs, ThrottleHooks};

use crate::machine;

/// The no-op program's object.
#[cfg(noop_object)]
const NOOP: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("LOADLINE_NOOP_OBJECT")));
/// The no-op program's object, which was not there when this was built.
#[cfg(not(noop_object))]
const NOOP: Option<&[u8]> = None;

/// How long runqlat may take to load and attach; under emulation some seconds.
const ATTACH_LIMIT: Duration = Duration::from_secs(60);

/// What can be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Design {
    /// Nothing: what the others are compared with.
    Nothing,
    /// A program that does nothing at each switch.
    Noop,
    /// `sched_switch` as the sampler attaches it.
    Loadline,
    /// libbpf-tools' `runqlat` with its default flags.
    Runqlat,
}

impl Design {
    /// Its name in the figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Noop => "noop",
            Self::Loadline => "loadline",
            Self::Runqlat => "runqlat",
        }
    }
}

/// The designs that this kernel loads, ready to be attached.
pub struct Designs {
    noop: Ebpf,
    /// Loadline's programs.
    pub loadline: Programs,
    runqlat: Result<PathBuf, String>,
    /// Names of Loadline's programs that the kernel loaded.
    pub loaded: Vec<String>,
}

impl Designs {
    /// Loads all but runqlat, of which it only finds out whether it can be.
    pub fn load(runqlat: Option<&Path>) -> Result<Self> {
        let before = program_ids();
        let options = Options { key: Key::Cpu, hierarchy_id: 0, slots: None };
        let loadline = Programs::load(options).context("Loadline's programs do not load")?;
        let loaded = loaded_programs()
            .flatten()
            .filter(|program| !before.contains(&program.id()))
            .map(|program| program.name_as_str().unwrap_or("?").to_owned())
            .collect();
        let object =
            NOOP.context("built without target/bpf/noop: run `cargo xtask build-ebpf`, then build again")?;
        let mut noop = Ebpf::load(object).context("the no-op program's maps are refused")?;
        let btf = aya::Btf::from_sys_fs().context("the kernel's BTF cannot be read")?;
        tracepoint(&mut noop)?.load("sched_switch", &btf).context("the no-op program is refused")?;
        let mut designs = Self { noop, loadline, runqlat: Err("not asked for (--runqlat)".into()), loaded };
        if let Some(path) = runqlat {
            designs.runqlat = Ok(path.to_owned());
            if let Err(error) = designs.with(Design::Runqlat, || Ok(())) {
                designs.runqlat = Err(format!("{error:#}"));
            }
        }
        Ok(designs)
    }

    /// All that this kernel loads.
    pub fn all(&self) -> Vec<Design> {
        let mut all = vec![Design::Nothing, Design::Noop, Design::Loadline];
        all.extend(self.runqlat.is_ok().then_some(Design::Runqlat));
        all
    }

    /// Why runqlat is not among them.
    pub fn no_runqlat(&self) -> Option<&str> {
        self.runqlat.as_ref().err().map(String::as_str)
    }

    /// Which programs the kernel loads, in words.
    pub fn in_words(&self) -> String {
        let hooks = match &self.loadline.throttle_hooks {
            ThrottleHooks::Attached => String::new(),
            ThrottleHooks::Unavailable(_) => "; the throttle programs are refused here".into(),
        };
        format!("loaded: {}{hooks}", self.loaded.join(", "))
    }

    /// Does something with a design attached.
    pub fn with<T>(&mut self, design: Design, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match design {
            Design::Nothing => work(),
            Design::Noop => {
                let link = tracepoint(&mut self.noop)?.attach().context("attaching the no-op")?;
                let result = work();
                tracepoint(&mut self.noop)?.detach(link).context("detaching the no-op")?;
                result
            }
            Design::Loadline => {
                self.loadline.start().context("attaching Loadline")?;
                let result = work();
                self.loadline.stop().context("detaching Loadline")?;
                result
            }
            Design::Runqlat => {
                let path = self.runqlat.as_ref().map_err(|why| anyhow::anyhow!("no runqlat: {why}"))?;
                let running = Runqlat::start(path)?;
                let result = work();
                running.stop()?;
                result
            }
        }
    }

    /// The no-op program as the kernel describes it.
    pub fn noop_info(&self) -> Option<aya::programs::ProgramInfo> {
        self.noop.program("noop")?.info().ok()
    }
}

fn tracepoint(noop: &mut Ebpf) -> Result<&mut BtfTracePoint> {
    Ok(noop.program_mut("noop").context("no program noop in its object")?.try_into()?)
}

/// A running runqlat.
struct Runqlat(Child);

impl Runqlat {
    /// Starts it and waits until its three programs are attached. It says nothing until it is stopped, so the
    /// kernel is asked.
    fn start(path: &Path) -> Result<Self> {
        let before = link_ids();
        let mut command = Command::new(path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", path.display()))?;
        let until = Instant::now() + ATTACH_LIMIT;
        while link_ids().difference(&before).count() < 3 {
            if let Some(status) = child.try_wait().context("waiting for runqlat")? {
                bail!("runqlat ended with {status}");
            }
            if Instant::now() > until {
                let _ = child.kill();
                let _ = child.wait();
                bail!("runqlat did not attach within {} s", ATTACH_LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Attached means: about to begin its sleep until it is stopped.
        std::thread::sleep(Duration::from_millis(20));
        Ok(Self(child))
    }

    fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).context("a pid that is none")?);
        kill(pid, Signal::SIGINT).context("stopping runqlat")?;
        let until = Instant::now() + ATTACH_LIMIT;
        while self.0.try_wait().context("waiting for runqlat")?.is_none() {
            if Instant::now() > until {
                bail!("runqlat does not stop");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Runqlat {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn link_ids() -> BTreeSet<u32> {
    loaded_links().flatten().map(|link| link.id()).collect()
}

/// Ids of all loaded programs.
pub fn program_ids() -> BTreeSet<u32> {
    loaded_programs().flatten().map(|program| program.id()).collect()
}

/// Adds a note of where and how busily it was measured.
pub fn conditions(what: &str, in_vm: bool) -> String {
    let vm = if in_vm { ", virtual machine: only ratios mean something" } else { "" };
    format!("{what}; Linux {}, load average {}{vm}", machine::kernel(), machine::load())
}
