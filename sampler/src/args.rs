//! What can be said to the binary `sampler`, on the command line and in the environment. Parsed here into types that
//! cannot be wrong; clap says what was.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{
    ArgAction, ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
};

use crate::cgroup::layout::{Choice, Version};
use crate::kernel::layout::Key;
use crate::pods::NodeName;
use crate::read::Start;

const ABOUT: &str = "Measures how long each container's threads wait for a CPU, and why";

const TEACH: &str = "\
Examples:
  sampler top                      watch this host
  sampler serve                    the daemon: metrics on http://127.0.0.1:9464/metrics
  sampler record today.recording   keep what happens; look at it with `sampler top --replay today.recording`

Privileges: root, or CAP_BPF and CAP_PERFMON, until the programs are attached; all are given up then.
Replaying a recording needs none.

Exit codes:
  0  it did what it was asked to, or was asked to stop (SIGTERM, SIGINT)
  1  something failed while it ran: a file, an address that is in use
  2  the command line cannot be understood
  3  this kernel, or the privileges given, do not allow measuring; the message says what is missing";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "sampler",
    version,
    about = ABOUT,
    after_help = TEACH,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to log.
    #[command(flatten)]
    pub log: Log,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run as a daemon: Prometheus metrics, /healthz and /readyz
    Serve(Serve),
    /// Watch containers live, sorted by what hurts
    Top(Top),
    /// Write what happens to a file, until stopped
    Record(Record),
}

impl Command {
    /// What may also be replayed, in what it says of a machine.
    fn live(&mut self) -> Option<&mut Live> {
        match self {
            Self::Serve(serve) => Some(&mut serve.live),
            Self::Top(top) => Some(&mut top.live),
            Self::Record(_) => None,
        }
    }
}

/// `sampler serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// Address and port for HTTP; in a pod 0.0.0.0:9464
    #[arg(long, env = "LOADLINE_LISTEN", default_value = "127.0.0.1:9464", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Containers and units that get series of their own; what is beyond is added up in one called `_other`
    #[arg(
        long,
        env = "LOADLINE_MAX_CONTAINERS",
        default_value_t = 1000,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    pub max_containers: u32,
    /// Let the kernel time the BPF programs exactly; costs some 30 ns a context switch, and CAP_SYS_ADMIN at start
    #[arg(long, env = "LOADLINE_BPF_STATS", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub bpf_stats: bool,
    /// What is measured.
    #[command(flatten)]
    pub live: Live,
    /// What is replayed instead.
    #[command(flatten)]
    pub replay: Replay,
}

/// `sampler top`
#[derive(Debug, Args)]
// Somebody looks on.
#[command(mut_arg("interval", |interval| interval.default_value("1s")))]
pub struct Top {
    /// Print one window and end, as for a pipe
    #[arg(long)]
    pub once: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
    /// What is measured.
    #[command(flatten)]
    pub live: Live,
    /// What is replayed instead.
    #[command(flatten)]
    pub replay: Replay,
}

/// `sampler record`
#[derive(Debug, Args)]
pub struct Record {
    /// The file, which must not exist yet
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Stop by itself after so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// What is measured.
    #[command(flatten)]
    pub live: Live,
}

/// What is measured, and how often it is looked at.
#[derive(Debug, Args)]
pub struct Live {
    /// Length of a window, such as 5s or 500ms
    #[arg(long, env = "LOADLINE_INTERVAL", default_value = "5s", value_name = "TIME", value_parser = interval)]
    pub interval: Duration,
    /// Name of this Kubernetes node: pods get their names from the API server then, which is found by KUBECONFIG, a
    /// pod's service account, or ~/.kube/config. With --replay: of the node that was recorded, for containers whose names
    /// the recording does not have
    #[arg(long, env = "LOADLINE_NODE_NAME", value_name = "NAME", value_parser = node_name)]
    pub node_name: Option<NodeName>,
    /// Where the host's cgroups are mounted, such as /sys/fs/cgroup [default: as /proc/self/mountinfo says]
    #[arg(long, env = "LOADLINE_CGROUP_ROOT", value_name = "DIRECTORY")]
    pub cgroup_root: Option<PathBuf>,
    /// Which version of cgroups the host has: v1, hybrid or v2 [default: as /proc/self/mountinfo says]
    #[arg(long, env = "LOADLINE_CGROUP_VERSION", value_name = "VERSION")]
    pub cgroup_version: Option<Version>,
    /// The cgroup controller whose groups are counted apart [default: the one that is enabled for all containers]
    #[arg(long, env = "LOADLINE_KEY", value_enum, value_name = "CONTROLLER")]
    pub key: Option<KeyArgument>,
    /// Cgroups that can be counted apart at one time, a power of two; each takes 1,536 bytes for every
    /// possible CPU (/sys/devices/system/cpu/possible) [default: 1024, or 512 with more than 42 of them]
    #[arg(long, env = "LOADLINE_SLOTS", value_name = "N", value_parser = slots)]
    pub slots: Option<u32>,
}

/// What says how this machine is measured, and nothing to who replays a recording.
const OF_THIS_MACHINE: [&str; 6] = ["interval", "cgroup_root", "cgroup_version", "key", "slots", "bpf_stats"];

impl Arguments {
    /// The command line and the environment of this process. What cannot be understood ends it, with the reason.
    pub fn read() -> Self {
        Self::of(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// This command line, and the environment of this process.
    fn of(line: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(line)?;
        let replayed = matches.subcommand().filter(|(_, given)| said(given, "replay"));
        if let Some((name, given)) = replayed
            && let Some(argument) = OF_THIS_MACHINE.into_iter().find(|argument| said(given, argument))
        {
            let why = format!(
                "--{} is about this machine and cannot be used with --replay, which shows another time",
                argument.replace('_', "-")
            );
            let command = command.find_subcommand_mut(name).map_or_else(Self::command, |found| found.clone());
            return Err(command.clone().error(ErrorKind::ArgumentConflict, why));
        }
        let mut arguments = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        // What the environment names is this machine, and the recording may be another's.
        if replayed.is_some_and(|(_, given)| !said(given, "node_name"))
            && let Some(live) = arguments.command.live()
        {
            live.node_name = None;
        }
        Ok(arguments)
    }
}

/// Whether somebody has written this argument on the command line. What the environment says is meant for whatever is
/// run in it, and is no contradiction.
fn said(matches: &ArgMatches, argument: &str) -> bool {
    let is_known = matches.try_contains_id(argument).is_ok();
    is_known && matches.value_source(argument) == Some(ValueSource::CommandLine)
}

impl Live {
    /// What the reader has to know.
    pub fn start(&self) -> Start {
        Start {
            cgroups: Choice { root: self.cgroup_root.clone(), version: self.cgroup_version },
            key: self.key.map(Key::from),
            slots: self.slots,
        }
    }
}

/// A recording in place of the running kernel.
#[derive(Debug, Args)]
pub struct Replay {
    /// Show a recording, at the pace at which it was made, in place of this machine
    #[arg(long = "replay", id = "replay", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// How to log. Logs go to standard error.
#[derive(Debug, Args)]
pub struct Log {
    /// How log lines look
    #[arg(long, global = true, env = "LOADLINE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace
    #[arg(long, global = true, env = "LOADLINE_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub log_level: tracing::Level,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
}

/// How `top` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For machines: one object a window.
    Json,
}

/// [`Key`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyArgument {
    /// The cpu controller.
    Cpu,
    /// The memory controller.
    Memory,
    /// The pids controller.
    Pids,
}

impl From<KeyArgument> for Key {
    fn from(key: KeyArgument) -> Self {
        match key {
            KeyArgument::Cpu => Self::Cpu,
            KeyArgument::Memory => Self::Memory,
            KeyArgument::Pids => Self::Pids,
        }
    }
}

/// A length of time: a whole number with a unit, `ms`, `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("{text:?} is no time: write a whole number and ms, s, m or h, as in 5s");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(wrong)
}

/// A window's length: rows are read that often, so neither all the time nor so rarely that nobody sees anything.
fn interval(text: &str) -> Result<Duration, String> {
    const ALLOWED: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);
    let length = duration(text)?;
    if ALLOWED.contains(&length) { Ok(length) } else { Err(format!("{text} is not between 100ms and 5m")) }
}

fn node_name(text: &str) -> Result<NodeName, String> {
    text.to_owned().try_into().map_err(|error: crate::pods::NodeNameError| error.to_string())
}

fn slots(text: &str) -> Result<u32, String> {
    let slots: u32 = text.parse().map_err(|_| format!("{text:?} is no whole number"))?;
    let fits = slots.is_power_of_two() && (2..=sampler_common::abi::TABLE).contains(&slots);
    let most = sampler_common::abi::TABLE;
    if fits { Ok(slots) } else { Err(format!("{text} is not a power of two between 2 and {most}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::of(line.split_whitespace())
    }

    fn serve(line: &str) -> Serve {
        match parse(line).unwrap().command {
            Command::Serve(serve) => serve,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_daemon_listens_on_this_host_only_unless_told_otherwise() {
        let serve = serve("sampler serve");
        assert_eq!(serve.listen, SocketAddr::from(([127, 0, 0, 1], 9464)));
        assert_eq!(serve.live.interval, Duration::from_secs(5));
        assert!(serve.replay.file.is_none() && !serve.bpf_stats);
    }

    #[test]
    fn a_window_is_shorter_where_somebody_looks_on() {
        let Command::Top(top) = parse("sampler top").unwrap().command else { panic!("not top") };
        assert_eq!(top.live.interval, Duration::from_secs(1));
    }

    #[test]
    fn everything_that_is_said_is_heard() {
        let serve = serve(
            "sampler serve --listen 0.0.0.0:1 --interval 250ms --node-name n --cgroup-root /host --key pids \
             --slots 64 --max-containers 7 --bpf-stats --log-format json --log-level debug",
        );
        let start = serve.live.start();
        assert_eq!(serve.live.interval, Duration::from_millis(250));
        assert_eq!((start.key, start.slots), (Some(Key::Pids), Some(64)));
        assert_eq!(start.cgroups.root.as_deref(), Some(std::path::Path::new("/host")));
        assert_eq!((serve.max_containers, serve.bpf_stats), (7, true));
    }

    #[test]
    fn a_recording_may_be_of_a_node_that_has_a_name() {
        let serve = serve("sampler serve --replay f --node-name n");
        assert_eq!(serve.live.node_name, Some(NodeName::try_from("n".to_owned()).unwrap()));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        for (line, reason) in [
            ("sampler serve --interval 5", "whole number and ms, s, m or h"),
            ("sampler serve --interval 99999999999999999h", "whole number"),
            ("sampler serve --interval 10ms", "between 100ms and 5m"),
            ("sampler serve --slots 1000", "power of two"),
            ("sampler serve --slots 1", "power of two"),
            ("sampler serve --listen localhost", "invalid socket address"),
            ("sampler serve --key io", "cpu, memory, pids"),
            ("sampler serve --cgroup-version 2", "v1, hybrid or v2"),
            ("sampler serve --replay f --slots 64", "--slots is about this machine"),
            ("sampler top --replay f --cgroup-root /x", "--cgroup-root is about this machine"),
            ("sampler serve --replay f --bpf-stats", "cannot be used with --replay"),
            ("sampler record", "FILE"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(reason), "{line}: {error}");
        }
    }
}
