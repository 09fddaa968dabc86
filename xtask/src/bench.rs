//! `bench`: what the sampler costs, natively where the host can and in virtual machines, and what the controller's decisions
//! cost, as a table and as JSON.

use std::{fmt::Write as _, fs, path::Path, process::ExitCode, time::Duration};

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
    /// The kernels to measure in virtual machines.
    pub kernels: Vec<Series>,
}

/// Runs the benchmarks, prints the table and writes `target/bench.json`.
pub fn run(cache: &Cache, workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    ebpf::build(cache, workspace, ebpf::PACKAGE)?;
    let built = programs::build(workspace, &[PROGRAM, programs::SAMPLER])?;
    let [program, sampler] = &built[..] else { bail!("not all programs were built") };
    let mut results = Vec::new();
    if !options.no_native {
        results.extend(natively(cache, workspace, program, sampler)?);
    }
    if !options.kernels.is_empty() {
        let lab = Lab::open(cache, workspace)?;
        for &series in &options.kernels {
            results.extend(in_vm(cache, &lab, series, program, sampler)?);
        }
    }
    results.extend(of_controller(workspace)?);
    let path = workspace.target.join("bench.json");
    let text = serde_json::to_string_pretty(&results).context("writing JSON")?;
    files::write(&path, (text + "\n").as_bytes())?;
    print!("{}", table(&results));
    println!("written to {}", path.display());
    if results.is_empty() {
        bail!("nothing could be measured");
    }
    Ok(ExitCode::SUCCESS)
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
fn results_file(workspace: &Workspace, name: &str) -> Result<std::path::PathBuf> {
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

/// Under emulation, where only comparisons within one run mean something. The kernel is said in the name.
fn in_vm(cache: &Cache, lab: &Lab<'_>, series: Series, program: &Path, sampler: &Path) -> Result<Vec<Value>> {
    lab.prepare(series)?;
    let mut root = Initramfs::new();
    root.host_program("/init", program);
    root.host_program("/usr/bin/sampler", sampler);
    programs::add_runqlat(cache, &mut root)?;
    let arguments = ["vm", "--runqlat", "/usr/sbin/runqlat", "--json", RESULTS].map(str::to_owned).into();
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
    let mut results = parse(text)?;
    for result in &mut results {
        if let Some(name) = result["name"].as_str() {
            result["name"] = format!("{name} (linux-{series} vm)").into();
        }
    }
    Ok(results)
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
    fn a_result_without_a_value_is_refused() {
        assert!(parse(br#"[{"name":"x","unit":"ns"}]"#).is_err());
        assert!(parse(b"{}").is_err());
    }
}
