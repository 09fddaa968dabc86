//! `test`: on the host the unit and property tests, then those with real Prometheus servers and a real API server, and the fuzz
//! targets; in virtual machines the kernel tests on every kernel, and those with real container runtimes on one; and the demo.
//! All of them are run, whatever fails, and then told in a line each.

use std::{
    collections::VecDeque,
    iter,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    apiserver,
    cache::Cache,
    demo_test, ebpf, fuzz,
    initramfs::Initramfs,
    kernel::Series,
    machine::{Job, Lab},
    programs, prometheus, runtime,
    suite::{self, Listener, Outcome},
    unit,
    workspace::Workspace,
};

/// The program that is init of the guests and runs the kernel tests.
const KERNEL_PROGRAM: &str = "kernel";
/// The program that is init of the guest with a container runtime; its suite is named so too.
const RUNTIME_PROGRAM: &str = "runtime";
/// The kernel under the container runtime: what most nodes run.
const RUNTIME_KERNEL: Series = Series::V6_12;
/// All tests in one machine take at most this long: a quarter of an hour on two quiet processors under emulation, and on
/// busy ones a multiple of that. It ends a machine that stands still.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// What to test.
pub struct Options {
    /// Only what needs no virtual machine.
    pub pure: bool,
    /// Nothing on the host, and the kernel tests on these kernels only.
    pub kernels: Vec<Series>,
    /// Nothing on the host, and the tests with a real container runtime.
    pub runtime: bool,
    /// Nothing but the tests with real Prometheus servers, on the host.
    pub prometheus: bool,
    /// Nothing else but the tests with a real API server.
    pub apiserver: bool,
    /// Nothing else but the demo, as a user runs it.
    pub demo: bool,
    /// Nothing but the fuzz targets, for this long together.
    pub fuzz: Option<Duration>,
    /// Only tests whose name contains this.
    pub filter: Option<String>,
}

/// Runs the tests; the exit code tells whether all went well.
pub fn run(cache: &Cache, workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    ebpf::build(cache, workspace, ebpf::PACKAGE)?;
    let everything = options.kernels.is_empty()
        && !options.runtime
        && !options.prometheus
        && !options.apiserver
        && !options.demo
        && options.fuzz.is_none();
    let filter = options.filter.as_deref();
    let mut outcomes = Vec::new();
    if everything {
        outcomes
            .push(unit::run(workspace, filter).unwrap_or_else(|error| Outcome::broken(unit::NAME, &error)));
    }
    if !options.pure {
        outcomes.extend(beyond_units(cache, workspace, options, everything));
    }
    let good = suite::conclude(&outcomes, filter.is_some());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The suites that need more than cargo.
fn beyond_units(cache: &Cache, workspace: &Workspace, options: &Options, everything: bool) -> Vec<Outcome> {
    let filter = options.filter.as_deref();
    let mut outcomes = Vec::new();
    if options.prometheus || everything {
        let outcome = prometheus::run(cache, workspace, filter);
        outcomes.push(outcome.unwrap_or_else(|error| Outcome::broken(prometheus::PROGRAM, &error)));
    }
    if options.apiserver || everything {
        let outcome = apiserver::run(cache, workspace, filter);
        outcomes.push(outcome.unwrap_or_else(|error| Outcome::broken(apiserver::PROGRAM, &error)));
    }
    if let Some(time) = options.fuzz.or(everything.then_some(fuzz::USUAL)) {
        let outcome = fuzz::run(cache, workspace, time, filter);
        outcomes.push(outcome.unwrap_or_else(|error| Outcome::broken(fuzz::NAME, &error)));
    }
    let kernels = if everything { &Series::ALL[..] } else { &options.kernels };
    let with_runtime = options.runtime || everything;
    if with_runtime || !kernels.is_empty() {
        outcomes.extend(in_machines(cache, workspace, kernels, with_runtime, filter).unwrap_or_else(
            |error| {
                let names = kernels.iter().map(|&series| name_of(series));
                let names = names.chain(with_runtime.then(|| RUNTIME_PROGRAM.to_owned()));
                names.map(|name| Outcome::broken(name, &error)).collect()
            },
        ));
    }
    // After the others: what it shows depends on what else the host does.
    if options.demo || everything {
        let demo = |names: &[&str]| {
            let outcome = demo_test::run(cache, workspace, names);
            outcome.unwrap_or_else(|error| Outcome::broken(demo_test::NAME, &error))
        };
        let again = |failed: Vec<String>| demo(&failed.iter().map(String::as_str).collect::<Vec<_>>());
        outcomes.push(demo(filter.as_slice()).settled(again));
    }
    outcomes
}

/// A suite that runs in a machine of its own.
struct Suite {
    name: String,
    job: Job,
}

fn in_machines(
    cache: &Cache,
    workspace: &Workspace,
    kernels: &[Series],
    with_runtime: bool,
    filter: Option<&str>,
) -> Result<Vec<Outcome>> {
    let lab = Lab::open(cache, workspace)?;
    // All that may have to be fetched or built is, before several machines run and speak at once.
    let mut suites = Vec::new();
    for &series in kernels {
        suites.push(of_kernel(cache, workspace, series, filter)?);
    }
    if with_runtime {
        suites.push(of_runtime(cache, workspace, filter)?);
    }
    let (mut queue, mut results) = (VecDeque::new(), Vec::new());
    for (index, suite) in suites.iter().enumerate() {
        match lab.prepare(suite.job.series) {
            Ok(()) => queue.push_back((index, suite)),
            // One kernel that is not to be had does not keep the others from being tested.
            Err(error) => results.push((index, Outcome::broken(&suite.name, &error))),
        }
    }
    // Each emulated machine is one busy thread, so as many as there are processors.
    let workers = lab.at_once().min(suites.len());
    let names: Vec<_> = suites.iter().map(|suite| suite.name.as_str()).collect();
    eprintln!("Tests in virtual machines: {} ({workers} at a time) …", names.join(", "));
    let (queue, results) = (Mutex::new(queue), Mutex::new(results));
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    // Each lock on a line of its own: it is held to the end of what it stands in.
                    let next = lock(&queue).pop_front();
                    let Some((index, suite)) = next else { return };
                    let outcome = run_suite(&lab, suite);
                    lock(&results).push((index, outcome));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    let ended = results.into_iter().zip(&mut suites);
    let settled = ended.map(|((_, outcome), suite)| {
        // In a fresh machine.
        outcome.settled(|failed| {
            suite.job.arguments = arguments(failed.into_iter().map(|name| format!("={name}")));
            run_suite(&lab, suite)
        })
    });
    Ok(settled.collect())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the suite of kernel tests on this kernel is called.
fn name_of(series: Series) -> String {
    format!("linux-{series}")
}

fn of_kernel(cache: &Cache, workspace: &Workspace, series: Series, filter: Option<&str>) -> Result<Suite> {
    let mut root = root_of(workspace, KERNEL_PROGRAM)?;
    programs::add_runqlat(cache, &mut root)?;
    for sampler in programs::build(workspace, &[programs::SAMPLER])? {
        root.host_program("/usr/bin/sampler", &sampler);
    }
    Ok(Suite { name: name_of(series), job: job(series, root, filter) })
}

fn of_runtime(cache: &Cache, workspace: &Workspace, filter: Option<&str>) -> Result<Suite> {
    let mut root = root_of(workspace, RUNTIME_PROGRAM)?;
    runtime::add(cache, workspace, &mut root)?;
    Ok(Suite { name: RUNTIME_PROGRAM.to_owned(), job: job(RUNTIME_KERNEL, root, filter) })
}

/// A guest of which this program is init.
fn root_of(workspace: &Workspace, program: &str) -> Result<Initramfs> {
    let built = programs::build(workspace, &[program])?;
    let mut root = Initramfs::new();
    root.host_program("/init", built.first().with_context(|| format!("no program {program}"))?);
    Ok(root)
}

fn job(series: Series, root: Initramfs, filter: Option<&str>) -> Job {
    let arguments = arguments(filter.map(str::to_owned));
    Job { series, root, arguments, environment: Vec::new(), watched: false, limit: LIMIT }
}

/// Of a program of tests, to run each as often as one of these fits (part of its name, or `=NAME`, the whole), or all once.
fn arguments(filters: impl IntoIterator<Item = String>) -> Vec<String> {
    iter::once("test".to_owned()).chain(filters).collect()
}

fn run_suite(lab: &Lab<'_>, suite: &Suite) -> Outcome {
    try_suite(lab, suite).unwrap_or_else(|error| Outcome::broken(&suite.name, &error))
}

fn try_suite(lab: &Lab<'_>, suite: &Suite) -> Result<Outcome> {
    let start = Instant::now();
    let mut listener = Listener::new(&suite.name);
    let finished = lab.run(&suite.job, &format!("test-{}", suite.name), &mut |said| {
        listener.hear(&said.output);
        said.notes.iter().for_each(|note| listener.say(note));
        Ok(())
    })?;
    listener.say(&format!("took {} s", start.elapsed().as_secs()));
    Ok(listener.end(finished.code))
}
