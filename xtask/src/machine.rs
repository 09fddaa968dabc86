//! A virtual machine: boots a kernel with a root file system in memory, follows its console, and ends it in time.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cache::Cache,
    initramfs::Initramfs,
    kernel::{self, Series},
    process::{self, Running, Stop},
    programs,
    protocol::{Parser, Said},
    qemu::Qemu,
    step::Step,
    workspace::Workspace,
};

/// A guest says `up` within this time: under emulation on a loaded host a boot has taken 20 s.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// What `/dev/kvm` gets to show that it works; a real one needs a second.
const KVM_LIMIT: Duration = Duration::from_secs(15);
/// After `exit`, powering off is a formality.
const OFF_LIMIT: Duration = Duration::from_secs(15);
/// How much of the console is shown when something went wrong.
const TAIL: usize = 60;

/// How a guest's processors are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    /// By the host's hardware.
    Kvm,
    /// By emulation, in one thread: repeatable, and two machines share two cores well.
    Emulated,
}

/// What is needed to boot machines.
pub struct Lab<'a> {
    cache: &'a Cache,
    /// Console logs go here.
    logs: PathBuf,
    qemu: Qemu,
    processor: Processor,
}

/// One machine to boot.
pub struct Job {
    /// The kernel.
    pub series: Series,
    /// The root file system; its `/init` speaks our protocol.
    pub root: Initramfs,
    /// `/init`'s arguments.
    pub arguments: Vec<String>,
    /// `/init`'s environment, beside what the kernel gives.
    pub environment: Vec<(String, String)>,
    /// Somebody watches this one machine: its boot is shown, and Ctrl-C is for the guest.
    pub watched: bool,
    /// The whole run takes at most this long.
    pub limit: Duration,
}

/// How a machine ended.
#[derive(Debug)]
pub struct Finished {
    /// What the guest gave as its exit code.
    pub code: i32,
    /// Files that it sent.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Why a run has no exit code.
enum Failure {
    /// The guest's init never spoke.
    BeforeUp(String),
    /// It spoke, and then went wrong.
    AfterUp(String),
}

impl<'a> Lab<'a> {
    /// Gets QEMU and finds out what the host's processors can do for us.
    pub fn open(cache: &'a Cache, workspace: &Workspace) -> Result<Self> {
        let mut lab = Self {
            cache,
            logs: workspace.target.join("vm"),
            qemu: Qemu::find(cache)?,
            processor: Processor::Emulated,
        };
        lab.processor = lab.probe()?;
        Ok(lab)
    }

    /// `/dev/kvm` may be there and not boot an ordinary kernel, so it is tried: once per boot of the host.
    fn probe(&self) -> Result<Processor> {
        const NOTE: &str = "kvm-probe";
        let device = File::options().read(true).write(true).open("/dev/kvm");
        if device.is_err() {
            return Ok(Processor::Emulated);
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let answer = |works: bool| format!("{} {works}", boot.trim());
        match self.cache.noted(NOTE, Duration::MAX) {
            Some(known) if known == answer(true) => return Ok(Processor::Kvm),
            Some(known) if known == answer(false) => return Ok(Processor::Emulated),
            _ => {}
        }
        let root = programs::shell_root(self.cache, "exit 0")?;
        let kernel = kernel::image(self.cache, Series::V6_12)?;
        let step = Step::start("Trying /dev/kvm");
        let job = Job {
            series: Series::V6_12,
            root,
            arguments: vec![],
            environment: vec![],
            watched: false,
            limit: KVM_LIMIT,
        };
        let run = self.run_once(&job, &kernel, Processor::Kvm, "kvm-probe", KVM_LIMIT, &mut |_| Ok(()));
        let works = matches!(run?, Ok(Finished { code: 0, .. }));
        if works {
            step.done();
        } else {
            step.gave_up("it boots no kernel; machines are emulated (slower)");
        }
        self.cache.note(NOTE, &answer(works))?;
        Ok(if works { Processor::Kvm } else { Processor::Emulated })
    }

    /// Gets a kernel before it is needed, where its steps can be shown one after the other.
    pub fn prepare(&self, series: Series) -> Result<()> {
        kernel::image(self.cache, series).map(drop)
    }

    /// How many machines run well at once.
    pub fn at_once(&self) -> usize {
        thread::available_parallelism().map_or(1, usize::from)
    }

    /// Boots a machine and gives what it says to `output` as it comes. A boot that dies before its init has spoken is
    /// tried once more; nothing else is.
    pub fn run(
        &self,
        job: &Job,
        name: &str,
        output: &mut dyn FnMut(&Said) -> Result<()>,
    ) -> Result<Finished> {
        let kernel = kernel::image(self.cache, job.series)?;
        let retry = format!("{name}-retry");
        let mut name = name;
        loop {
            match self.run_once(job, &kernel, self.processor, name, BOOT_LIMIT, output)? {
                Ok(finished) => return Ok(finished),
                Err(Failure::BeforeUp(why)) if name != retry => {
                    eprintln!("linux-{}: the boot died before init: {why}", job.series);
                    eprintln!("linux-{}: booting once more", job.series);
                    name = &retry;
                }
                Err(Failure::BeforeUp(why) | Failure::AfterUp(why)) => {
                    bail!("linux-{}: {why}", job.series)
                }
            }
        }
    }

    fn run_once(
        &self,
        job: &Job,
        kernel: &Path,
        processor: Processor,
        name: &str,
        boot_limit: Duration,
        output: &mut dyn FnMut(&Said) -> Result<()>,
    ) -> Result<Result<Finished, Failure>> {
        let (_initramfs, initramfs) = self.nameless(&job.root.build()?)?;
        let log_path = self.logs.join(format!("{name}.log"));
        let mut log =
            File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;

        let mut command = self.command(kernel, &initramfs, processor, job)?;
        command.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = Instant::now();
        let mut running = Running::start(&mut command, Stop::KillGroup)?;
        let (sender, console) = mpsc::channel();
        let stdout = running.child().stdout.take().context("QEMU without an output")?;
        let stderr = running.child().stderr.take().context("QEMU without an output")?;
        forward(stdout, sender.clone(), true);
        forward(stderr, sender, false);

        let mut boot = job.watched.then(|| Step::start(format!("Booting Linux {}", job.series)));
        let mut keyboard = running.child().stdin.take();
        let mut parser = Parser::default();
        let mut off_by = None;
        let why = loop {
            match console.recv_timeout(Duration::from_millis(200)) {
                Ok((bytes, from_guest)) => {
                    log.write_all(&bytes).context("writing the console log")?;
                    if from_guest {
                        let said = parser.push(&bytes);
                        if parser.up && job.watched && keyboard.is_some() {
                            process::pass_interrupt_to(keyboard.take());
                        }
                        if parser.up
                            && let Some(boot) = boot.take()
                        {
                            boot.done();
                        }
                        if !said.is_empty() {
                            output(&said)?;
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(boot) = &mut boot {
                        boot.tick();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    break "the machine ended without saying how".to_owned();
                }
            }
            let time = start.elapsed();
            if parser.exit.is_some() {
                // It has said all that counts; it may go on powering off for a moment.
                let by = *off_by.get_or_insert_with(|| Instant::now() + OFF_LIMIT);
                if Instant::now() > by {
                    break String::new();
                }
            } else if !parser.up && time > boot_limit {
                break format!("init did not speak within {} s", boot_limit.as_secs());
            } else if time > job.limit.max(boot_limit) {
                break format!("no end after {} s", time.as_secs());
            }
        };
        process::pause_if_stopping();
        process::pass_interrupt_to(None);
        if let Some(boot) = boot.take() {
            boot.gave_up("the guest never spoke");
        }
        drop(running);
        if let Some(code) = parser.exit {
            return Ok(Ok(Finished { code, files: parser.files }));
        }
        let why = format!("{why}{}", last_lines(&log_path));
        Ok(Err(if parser.up { Failure::AfterUp(why) } else { Failure::BeforeUp(why) }))
    }

    /// Boots a machine whose console is the terminal, until it is powered off or Ctrl-A X is typed.
    pub fn interact(&self, job: &Job) -> Result<std::process::ExitStatus> {
        let kernel = kernel::image(self.cache, job.series)?;
        let (_initramfs, initramfs) = self.nameless(&job.root.build()?)?;
        let mut command = self.command(&kernel, &initramfs, self.processor, job)?;
        // Console and monitor share the terminal: Ctrl-C goes to the guest, Ctrl-A X ends QEMU.
        command.args(["-display", "none", "-serial", "mon:stdio"]);
        Running::start(&mut command, Stop::Forward)?.wait()
    }

    /// Content in a file that has no name, and a path by which QEMU opens it while we hold it: nothing to clean up,
    /// and nothing that another xtask could write over.
    fn nameless(&self, content: &[u8]) -> Result<(File, PathBuf)> {
        fs::create_dir_all(&self.logs).with_context(|| format!("cannot make {}", self.logs.display()))?;
        let thread = thread::current().id();
        let name = self.logs.join(format!("{}-{thread:?}.cpio", std::process::id()));
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&name);
        let write = |mut file: File| {
            fs::remove_file(&name)?;
            file.write_all(content)?;
            Ok(file)
        };
        let file = file.and_then(write).with_context(|| format!("cannot write {}", name.display()))?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        Ok((file, path.into()))
    }

    fn command(
        &self,
        kernel: &Path,
        initramfs: &Path,
        processor: Processor,
        job: &Job,
    ) -> Result<std::process::Command> {
        let mut command = self.qemu.command();
        command.args(["-no-reboot", "-nodefaults", "-no-user-config", "-smp", "2", "-m", "2G"]);
        match processor {
            Processor::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
            Processor::Emulated => command.args(["-accel", "tcg,thread=single", "-cpu", "max"]),
        };
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
        command.arg("-append").arg(command_line(job)?);
        Ok(command)
    }
}

/// The kernel's command line; it hands what it does not know to init as environment, and what follows `--` as
/// arguments.
fn command_line(job: &Job) -> Result<String> {
    // panic=-1: reboot at once, which -no-reboot makes an end.
    let mut line = "console=ttyS0 quiet loglevel=3 panic=-1".to_owned();
    for (name, value) in &job.environment {
        line += &format!(" {name}={value}");
    }
    if !job.arguments.is_empty() {
        line += " --";
    }
    for argument in &job.arguments {
        if argument.is_empty() || argument.contains(|c: char| c.is_whitespace() || c == '"' || c.is_control())
        {
            bail!("{argument:?} cannot be passed through a kernel command line");
        }
        line += &format!(" {argument}");
    }
    Ok(line)
}

fn forward(
    mut from: impl std::io::Read + Send + 'static,
    to: mpsc::Sender<(Vec<u8>, bool)>,
    from_guest: bool,
) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if to.send((buffer[..count].to_vec(), from_guest)).is_err() {
                return;
            }
        }
    });
}

/// The end of a console log, for an error message.
fn last_lines(log: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| file.read_to_end(&mut bytes));
    if read.is_err() || bytes.is_empty() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let tail = &lines[lines.len().saturating_sub(TAIL)..];
    let shown: String =
        tail.iter().map(|line| format!("\n    {}", line.replace(|c: char| c.is_control(), ""))).collect();
    format!("; the end of {}:{shown}", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(arguments: &[&str]) -> Job {
        Job {
            series: Series::V6_1,
            root: Initramfs::new(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            environment: vec![("COLUMNS".into(), "80".into())],
            watched: false,
            limit: Duration::from_secs(1),
        }
    }

    #[test]
    fn arguments_and_environment_reach_init() {
        let line = command_line(&job(&["test", "runq"])).unwrap();
        assert!(line.ends_with(" COLUMNS=80 -- test runq"), "{line}");
    }

    #[test]
    fn what_the_kernel_would_split_is_refused() {
        assert!(command_line(&job(&["two words"])).is_err());
    }
}
