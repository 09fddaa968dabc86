//! `loadline simulate loop`: services sized by what they wait for, beside VPA, a manifest and no limits.

use std::path::PathBuf;
use std::thread;

use anyhow::Context as _;
use clap::{Args, value_parser};

use super::{Output, policy, progress, show, write};
use crate::decide::check::Unsafe;
use crate::decide::scope::PolicyObject;
use crate::decide::units::MilliCpu;
use crate::simulate::ours::Ours;
use crate::simulate::plot::{Panel, Scale, plot};
use crate::simulate::rates::Rates;
use crate::simulate::service::{
    self, Allocation, Outcome, Setting, Sizing, Unchanged, VpaLoop, WINDOW_SECONDS,
};
use crate::simulate::service_report::{Loop, LoopReport};

/// What to simulate, and on what.
///
/// Each service runs on a machine of its own, in a model of Linux' scheduler (run queues, weights, quotas with periods of
/// 100 ms). Everybody starts with the same request and limit. VPA and ours have seen the usage of 8 days before, in which the
/// trace came again and again; `ours, cold` has not. `reserved` is the request averaged over time, `× free` is the 99th
/// percentile of the time to answer as a multiple of what it is without limits.
#[derive(Args)]
#[group(skip)]
pub struct Arguments {
    /// Request rates: text files with one number a line, the requests of one second.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    rps: Vec<PathBuf>,
    /// The CPU request at the beginning, as a multiple of what the service needs on average.
    #[arg(long, value_name = "MULTIPLE", num_args = 1.., default_values_t = [0.5, 1.0, 2.0], value_parser = multiple)]
    start: Vec<f64>,
    /// The CPU limit at the beginning, as a multiple of the request.
    #[arg(long, value_name = "MULTIPLE", default_value_t = 2.0, value_parser = ratio)]
    limit: f64,
    /// CPUs of the machine.
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = value_parser!(u16).range(1..=256))]
    cpus: u16,
    /// Threads that serve requests.
    #[arg(long, value_name = "NUMBER", default_value_t = 16, value_parser = value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// CPU time of a request on average; it is distributed exponentially.
    #[arg(long, value_name = "MS", default_value_t = 10.0, value_parser = cpu_ms)]
    cpu_ms: f64,
    /// Threads of another container that never sleep on the same machine, which has requested what is left of it.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = value_parser!(u16).range(0..=1024))]
    neighbors: u16,
    /// Of the random numbers.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// The policy that ours decides by: its YAML. Without, the defaults in mode Apply, with limits that move.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

fn within(text: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if range.contains(&number) {
        Ok(number)
    } else {
        Err(format!("not from {} to {}", range.start(), range.end()))
    }
}

fn multiple(text: &str) -> Result<f64, String> {
    within(text, 0.01..=100.0)
}

fn ratio(text: &str) -> Result<f64, String> {
    within(text, 1.0..=100.0)
}

fn cpu_ms(text: &str) -> Result<f64, String> {
    within(text, 0.01..=10_000.0)
}

/// Runs every service from every start, prints the figures and writes what was asked for.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let setting = Setting {
        cpus: arguments.cpus.into(),
        workers: arguments.workers.into(),
        mean_cpu_ns: arguments.cpu_ms * 1e6,
        neighbors: arguments.neighbors.into(),
        seed: arguments.seed,
    };
    let (policy, note) = policy::acting(arguments.policy.as_deref(), policy::APPLY_LIMITS)?;
    let all: Vec<Rates> = arguments.rps.iter().map(|path| Rates::read(path)).collect::<Result<_, _>>()?;
    let mut series = Vec::new();
    for rates in &all {
        let mean = rates.mean() * arguments.cpu_ms / 1e3;
        progress(&format!("{}: without limits", rates.name));
        let request = MilliCpu::ceil_cores(mean);
        let unheld = service::run(rates, &setting, Allocation { request, limit: None }, &mut Unchanged)?;
        for &multiple in &arguments.start {
            progress(&format!("{}: from {multiple} × its mean", rates.name));
            let request = MilliCpu::ceil_cores(mean * multiple);
            let limit = MilliCpu::ceil_cores(mean * multiple * arguments.limit);
            let start = Allocation { request, limit: Some(limit) };
            series.push(one(rates, &setting, &policy, start, multiple, &unheld)?);
        }
    }
    progress("");
    let report = LoopReport { series };
    show(format_args!("{note}{report}"))?;
    arguments.output.write_json(&report)?;
    if let Some(path) = &arguments.output.plot {
        let panels: Vec<Panel> = report.series.iter().map(panel).collect();
        write(path, &plot(&panels)?)?;
    }
    Ok(())
}

/// One service from one start, sized by everybody, side by side.
fn one(
    rates: &Rates,
    setting: &Setting,
    policy: &PolicyObject,
    start: Allocation,
    multiple: f64,
    unheld: &Outcome,
) -> anyhow::Result<Loop> {
    let sized = |mut sizing: Box<dyn Sizing>, warm: bool, start: Allocation| {
        if warm {
            service::warm_up(&mut *sizing, unheld, start)?;
        }
        service::run(rates, setting, start, &mut *sizing)
    };
    let ours = || Box::new(Ours::new(setting.cpus as u32, policy.clone()));
    thread::scope(|scope| {
        let ours_cold = scope.spawn(move || sized(ours(), false, start));
        let ours = scope.spawn(move || sized(ours(), true, start));
        let vpa = scope.spawn(move || sized(Box::<VpaLoop>::default(), true, start));
        let fixed = scope.spawn(move || sized(Box::new(Unchanged), false, start));
        let free = Allocation { limit: None, ..start };
        let no_limits = scope.spawn(move || sized(Box::new(Unchanged), false, free));
        let outcome = |thread: thread::ScopedJoinHandle<'_, Result<Outcome, Unsafe>>| {
            let outcome = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome.context("a plan was not safe")
        };
        Ok(Loop {
            name: rates.name.clone(),
            start: multiple,
            mean_demand_cores: rates.mean() * setting.mean_cpu_ns / 1e9,
            ours: outcome(ours)?,
            ours_cold: outcome(ours_cold)?,
            vpa: outcome(vpa)?,
            fixed: outcome(fixed)?,
            no_limits: outcome(no_limits)?,
        })
    })
}

fn panel(series: &Loop) -> Panel {
    let minutes = |index: usize| (index as u64 * WINDOW_SECONDS) as f64 / 60.0;
    let requests = |outcome: &Outcome| -> Vec<(f64, f64)> {
        outcome
            .course
            .iter()
            .enumerate()
            .map(|(index, (_, request))| (minutes(index), request.cores()))
            .collect()
    };
    let used =
        series.ours.course.iter().enumerate().map(|(index, (used, _))| (minutes(index), *used)).collect();
    let name = format!("{} from {} × its mean", series.name, series.start);
    Panel::of(name, Scale::Minutes, used, requests(&series.ours), requests(&series.vpa))
}
