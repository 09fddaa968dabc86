//! `bench`: what the sampler costs, natively where the host can and in virtual machines, and what the controller's decisions
//! cost, as a table and as JSON.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    cache::Cache,
    ebpf, files, host,
    initramfs::Initramfs,
    kernel::Series,
    machine::{Job, Lab},
    process::{Running, Stop},
    programs,
    workspace::Workspace,
};

const PROGRAM: &str = "bench";
/// One machine's benchmarks take at most this long.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// The file in which a guest sends its results.
const RESULTS: &str = "bench.json";

/// Which parts to run.
pub struct Options {
    /// Leave out what runs on the host.
    pub no_native: bool,
    /// The kernels to measure in virtual machines; the others only say how large the programs are.
    pub kernels: Vec<Series>,
}

/// Runs the benchmarks, prints the table and writes `target/bench.json`. A part that fails takes nothing of the others
/// along: what there is gets written after each, and the failure comes at the end.
pub fn run(cache: &Cache, workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    ebpf::build(cache, workspace, ebpf::PACKAGE)?;
    let built = programs::build(workspace, &[PROGRAM, programs::SAMPLER])?;
    let [program, sampler] = &built[..] else { bail!("not all programs were built") };
    let mut figures = Figures::new(workspace.target.join("bench.json"));
    if !options.no_native {
        figures.take(Place::Host, natively(cache, workspace, program, sampler))?;
    }
    let lab = Lab::open(cache, workspace)?;
    for &series in &options.kernels {
        figures.take(Place::Machine(series), in_vm(cache, &lab, series, [program, sampler], &[]))?;
    }
    // Loading is quick, and what a verifier makes of the programs differs from kernel to kernel.
    for series in Series::ALL.into_iter().filter(|series| !options.kernels.contains(series)) {
        figures.take(Place::Machine(series), in_vm(cache, &lab, series, [program, sampler], &["insns"]))?;
    }
    figures.take(Place::Anywhere, of_controller(workspace))?;
    figures.conclude()
}

/// Where something was measured.
#[derive(Clone, Copy)]
enum Place {
    /// On this host, at real speed.
    Host,
    /// In a virtual machine with this kernel.
    Machine(Series),
    /// Nothing of the kernel is in it.
    Anywhere,
}

/// All figures so far, which are also in a file.
struct Figures {
    file: PathBuf,
    all: Vec<Value>,
    failures: Vec<anyhow::Error>,
}

impl Figures {
    fn new(file: PathBuf) -> Self {
        Self { file, all: Vec::new(), failures: Vec::new() }
    }

    /// Takes in what a part came to, and says it at once if that is a failure. Each name is there once without an
    /// addition: of the place that was measured first, and so of the host where it can measure.
    fn take(&mut self, place: Place, measured: Result<Vec<Value>>) -> Result<()> {
        match measured {
            Ok(results) => {
                for mut result in results {
                    self.say_where(place, &mut result);
                    self.all.push(result);
                }
                let text = serde_json::to_string_pretty(&self.all).context("writing JSON")?;
                files::write(&self.file, (text + "\n").as_bytes())
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                self.failures.push(error);
                Ok(())
            }
        }
    }

    fn say_where(&self, place: Place, result: &mut Value) {
        let place = match place {
            Place::Host => "on this host".to_owned(),
            Place::Machine(series) => format!("linux-{series} vm"),
            Place::Anywhere => return,
        };
        let note = result["note"].as_str().unwrap_or_default();
        let name = result["name"].as_str().unwrap_or_default();
        if self.all.iter().any(|other| other["name"] == result["name"]) {
            result["name"] = format!("{name} ({place})").into();
        } else {
            result["note"] = [note, &place].join(if note.is_empty() { "" } else { "; " }).into();
        }
    }

    /// Prints the table. Fails where a part has failed, or nothing was measured.
    fn conclude(self) -> Result<ExitCode> {
        print!("{}", table(&self.all));
        println!("written to {}", self.file.display());
        if let Some(first) = self.failures.first() {
            bail!("{} parts were not measured, the first because: {first:#}", self.failures.len());
        }
        if self.all.is_empty() {
            bail!("nothing could be measured");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What decisions cost: `cargo bench -p controller`, which needs nothing of the host.
fn of_controller(workspace: &Workspace) -> Result<Vec<Value>> {
    let results = results_file(workspace, "controller.json")?;
    eprintln!("Benchmarks of the controller …");
    let mut command = workspace.cargo();
    command.args(["bench", "--package", "controller", "--bench", "decide", "--", "--json"]).arg(&results);
    command.stdout(std::process::Stdio::null());
    let status = Running::start(&mut command, Stop::Forward)?.wait()?;
    if !status.success() {
        bail!("the controller's benchmarks failed: {status}");
    }
    let text = fs::read(&results).with_context(|| format!("the benchmarks left no {}", results.display()))?;
    parse(&text)
}

/// Where benchmarks leave their results. What an earlier run left is removed: it must not be taken for this one's.
fn results_file(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let dir = workspace.target.join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let results = dir.join(name);
    if results.exists() {
        fs::remove_file(&results).with_context(|| format!("cannot remove {}", results.display()))?;
    }
    Ok(results)
}

/// At real speed, on the host's own kernel; nothing where it cannot.
fn natively(cache: &Cache, workspace: &Workspace, program: &Path, sampler: &Path) -> Result<Vec<Value>> {
    let root = match host::Root::find() {
        Ok(root) if Path::new("/sys/kernel/btf/vmlinux").exists() => root,
        Ok(_) => return skip("a kernel with BTF (/sys/kernel/btf/vmlinux)"),
        Err(why) => return skip(&why),
    };
    let runqlat = programs::host_runqlat(cache, workspace)?;
    let results = results_file(workspace, "native.json")?;
    eprintln!("Benchmarks on this host …");
    let sampler = ("LOADLINE_SAMPLER".to_owned(), sampler.display().to_string());
    let mut command = root.command(program, &[sampler]);
    command.arg("native").arg("--runqlat").arg(&runqlat).arg("--json").arg(&results);
    let status = Running::start(&mut command, Stop::Forward)?.wait()?;
    if status.code() == Some(host::CANNOT) {
        return skip("a kernel that lets us load tracing programs");
    }
    if !status.success() {
        bail!("the benchmarks on this host failed: {status}");
    }
    let text = fs::read(&results).with_context(|| format!("the benchmarks left no {}", results.display()))?;
    parse(&text)
}

fn skip(lacks: &str) -> Result<Vec<Value>> {
    eprintln!("No benchmarks at real speed: this host lacks {lacks}.");
    Ok(Vec::new())
}

/// Under emulation, where only comparisons within one run mean something; only these groups of figures, or all.
fn in_vm(
    cache: &Cache,
    lab: &Lab<'_>,
    series: Series,
    [program, sampler]: [&Path; 2],
    only: &[&str],
) -> Result<Vec<Value>> {
    lab.prepare(series)?;
    let mut root = Initramfs::new();
    root.host_program("/init", program);
    root.host_program("/usr/bin/sampler", sampler);
    programs::add_runqlat(cache, &mut root)?;
    let arguments = ["vm", "--runqlat", "/usr/sbin/runqlat", "--json", RESULTS].into_iter();
    let arguments = arguments.chain(only.iter().flat_map(|group| ["--only", group]));
    let arguments = arguments.map(str::to_owned).collect();
    let job = Job { series, root, arguments, environment: Vec::new(), watched: false, limit: LIMIT };
    eprintln!("Benchmarks on {series} in a virtual machine …");
    let finished = lab.run(&job, &format!("bench-{series}"), &mut |said| {
        // Progress, all of it; the figures come as a file.
        said.notes.iter().for_each(|note| eprintln!("{note}"));
        Ok(std::io::Write::write_all(&mut std::io::stderr(), &said.output)?)
    })?;
    if finished.code != 0 {
        bail!("linux-{series}: the benchmarks failed with exit code {}", finished.code);
    }
    let text = finished
        .files
        .get(RESULTS)
        .with_context(|| format!("linux-{series}: the guest sent no {RESULTS}"))?;
    parse(text)
}

/// A list of `{"name", "unit", "value", "min", "max", "note"}`.
fn parse(text: &[u8]) -> Result<Vec<Value>> {
    let results: Vec<Value> =
        serde_json::from_slice(text).context("the benchmarks' results are no JSON list")?;
    for result in &results {
        if !(result["name"].is_string() && result["unit"].is_string() && result["value"].is_number()) {
            bail!("a benchmark's result lacks name, unit or value: {result}");
        }
    }
    Ok(results)
}

/// The results for people.
fn table(results: &[Value]) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows: Vec<[String; 5]> = results
        .iter()
        .map(|result| {
            let range = match (result["min"].as_f64(), result["max"].as_f64()) {
                (Some(min), Some(max)) => format!("{}..{}", short(min), short(max)),
                _ => String::new(),
            };
            let value = result["value"].as_f64().map(short).unwrap_or_default();
            [text(&result["name"]), value, text(&result["unit"]), range, text(&result["note"])]
        })
        .collect();
    let head = ["name", "value", "unit", "min..max", "note"].map(str::to_owned);
    let width = |column: usize| {
        let cells = std::iter::once(&head).chain(&rows);
        cells.map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let [name, value, unit, range] = [0, 1, 2, 3].map(width);
    let mut out = String::new();
    for row in std::iter::once(&head).chain(&rows) {
        let [a, b, c, d, e] = row;
        let line = format!("{a:name$}  {b:>value$}  {c:unit$}  {d:>range$}  {e}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// Three digits are more than a benchmark is worth.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up() {
        let results = parse(
            br#"[{"name":"switch","unit":"ns","value":55.04,"min":50,"max":61.2,"note":"a note"},
                {"name":"a longer name","unit":"%","value":1234,"min":null,"max":null,"note":null}]"#,
        )
        .unwrap();
        assert_eq!(
            table(&results),
            "name           value  unit    min..max  note\n\
             switch          55.0  ns    50.0..61.2  a note\n\
             a longer name   1234  %\n"
        );
    }

    #[test]
    fn a_name_is_there_once_without_an_addition_and_what_failed_takes_nothing_along() {
        let dir = tempfile::tempdir().unwrap();
        let mut figures = Figures::new(dir.path().join("bench.json"));
        let one = |name: &str, note: &str| {
            Ok(vec![serde_json::json!({"name": name, "unit": "ns", "value": 1, "note": note})])
        };
        figures.take(Place::Host, one("a", "")).unwrap();
        figures.take(Place::Machine(Series::V6_12), one("a", "slow")).unwrap();
        figures.take(Place::Machine(Series::V6_1), Err(anyhow::anyhow!("no machine"))).unwrap();
        figures.take(Place::Machine(Series::V7_2), one("b", "slow")).unwrap();
        figures.take(Place::Anywhere, one("c", "pure")).unwrap();
        let written = parse(&fs::read(&figures.file).unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let written: Vec<_> = written.iter().map(|one| [text(&one["name"]), text(&one["note"])]).collect();
        let expected = [
            ["a", "on this host"],
            ["a (linux-6.12 vm)", "slow"],
            ["b", "slow; linux-7.2 vm"],
            ["c", "pure"],
        ];
        assert_eq!(written, expected);
        assert!(figures.conclude().unwrap_err().to_string().contains("no machine"));
    }

    #[test]
    fn a_result_without_a_value_is_refused() {
        assert!(parse(br#"[{"name":"x","unit":"ns"}]"#).is_err());
        assert!(parse(b"{}").is_err());
    }
}
