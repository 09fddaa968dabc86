//! The table of containers: how long each waited for a CPU, why, and what it used.
//!
//! It fits 80 columns (with a name of 20 characters or less). With more columns it says more: the wait per
//! second, then every cause in a column of its own.

use std::cmp::Ordering;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use sampler_common::snapshot::Cause;
use sampler_common::window::Window;

use super::quantity;

/// One container.
#[derive(Clone, Debug)]
pub struct TableRow<'a> {
    /// What to call it.
    pub name: String,
    /// What happened to it.
    pub window: &'a Window,
}

/// With this many columns there is room for the wait per second.
const WIDER: usize = 92;
/// With this many, for a column of each cause.
const WIDE: usize = 124;
/// What stands where there is nothing to show.
const NONE: &str = "–";

/// The table, `columns` wide at most: one line a container, the one that waits most first. Waiting for
/// nobody (`idle`) hurts least and counts last.
pub fn render(rows: &[TableRow<'_>], columns: usize) -> String {
    if rows.is_empty() {
        return "No container has run yet: there is nothing to show.\n".into();
    }
    let mut sorted: Vec<&TableRow<'_>> = rows.iter().collect();
    sorted.sort_by(|a, b| by_what_hurts(a.window, b.window).then_with(|| a.name.cmp(&b.name)));

    let shown = columns_shown(columns);
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(columns).unwrap_or(u16::MAX))
        .set_header(shown.iter().map(|column| column.header()));
    for row in sorted {
        table.add_row(shown.iter().map(|column| column.cell(row, columns)));
    }
    for (index, column) in shown.iter().enumerate() {
        let Some(laid_out) = table.column_mut(index) else { continue };
        laid_out.set_padding((0, if index + 1 == shown.len() { 0 } else { 2 }));
        if !matches!(column, Column::Name | Column::Causes) {
            laid_out.set_cell_alignment(CellAlignment::Right);
        }
    }
    super::lines(&table)
}

/// The order of the table: what hurts more comes first.
pub fn by_what_hurts(a: &Window, b: &Window) -> Ordering {
    hurt(b).total_cmp(&hurt(a))
}

/// Seconds of wait per second that somebody could do something about, and a little for the rest, so that it
/// decides between equals.
fn hurt(window: &Window) -> f64 {
    let idle_ns = window.causes.of(Cause::Idle);
    let rest_ns = window.wait_ns().saturating_sub(idle_ns);
    (rest_ns as f64 + idle_ns as f64 * 1e-3) / (window.length_ns.max(1) as f64)
}

#[derive(Clone, Copy)]
enum Column {
    Name,
    P50,
    P99,
    Highest,
    WaitPerSecond,
    /// The largest causes, in words.
    Causes,
    Cause(Cause),
    Throttled,
    Used,
}

fn columns_shown(columns: usize) -> Vec<Column> {
    let mut shown = vec![Column::Name, Column::P50, Column::P99, Column::Highest];
    if columns >= WIDER {
        shown.push(Column::WaitPerSecond);
    }
    if columns >= WIDE {
        shown.extend(Cause::ALL.map(Column::Cause));
    } else {
        shown.push(Column::Causes);
    }
    shown.extend([Column::Throttled, Column::Used]);
    shown
}

impl Column {
    fn header(self) -> &'static str {
        match self {
            Self::Name => "container",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Highest => "longest",
            Self::WaitPerSecond => "wait per s",
            Self::Causes => "waited for",
            Self::Cause(cause) => cause.label(),
            Self::Throttled => "throttled",
            Self::Used => "used",
        }
    }

    fn cell(self, row: &TableRow<'_>, columns: usize) -> String {
        let window = row.window;
        let cell = match self {
            Self::Name => Some(row.name.clone()),
            Self::P50 => quantity::quantile(&window.latency, 0.5),
            Self::P99 => quantity::quantile(&window.latency, 0.99),
            Self::Highest => quantity::highest(&window.latency),
            Self::WaitPerSecond => wait_per_second(window).map(quantity::duration),
            Self::Causes => largest_causes(window, if columns >= WIDER { 2 } else { 1 }),
            Self::Cause(cause) => window.share(cause).map(quantity::percent),
            Self::Throttled => window.throttled_share().map(quantity::percent),
            Self::Used => window.used_cores().map(quantity::cores),
        };
        cell.unwrap_or_else(|| NONE.into())
    }
}

/// Wait of all threads (s) in each second; `None` for an empty window.
pub fn wait_per_second(window: &Window) -> Option<f64> {
    (window.length_ns != 0).then(|| window.wait_ns() as f64 / window.length_ns as f64)
}

/// The causes of the wait and their shares, the largest first; those without any are left out.
pub fn causes_by_share(window: &Window) -> Vec<(Cause, f64)> {
    let mut causes: Vec<_> = Cause::ALL
        .into_iter()
        .filter_map(|cause| Some((cause, window.share(cause)?)))
        .filter(|(_, share)| *share > 0.0)
        .collect();
    // Stable: of two equal ones the first stays first.
    causes.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    causes
}

/// `quota 97 %, self 3 %`: at most so many; from the second on only those that round to a percent.
fn largest_causes(window: &Window, at_most: usize) -> Option<String> {
    const WORTH_SHOWING: f64 = 0.01;
    let words: Vec<_> = causes_by_share(window)
        .into_iter()
        .enumerate()
        .take_while(|(index, (_, share))| *index == 0 || *share >= WORTH_SHOWING)
        .map(|(_, (cause, share))| format!("{} {}", cause.label(), quantity::percent(share)))
        .take(at_most)
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{MS, quiet, throttled, waited};
    use super::*;
    use sampler_common::abi::Cause as Counted;

    fn sample() -> Vec<(&'static str, Window)> {
        vec![
            ("sleepy", waited(&[(900, 25_000, Counted::Idle)], 100)),
            ("off", quiet()),
            (
                "throttled",
                throttled(
                    waited(&[(100, 79 * MS, Counted::Quota), (100, 2 * MS, Counted::System)], 2_000),
                    100,
                    98,
                    0,
                ),
            ),
            ("crowded", waited(&[(7_000, 4 * MS, Counted::Own), (30, MS, Counted::Neighbor)], 9_990)),
        ]
    }

    fn rendered(columns: usize) -> String {
        let sample = sample();
        let rows: Vec<_> =
            sample.iter().map(|(name, window)| TableRow { name: (*name).into(), window }).collect();
        render(&rows, columns)
    }

    #[test]
    fn at_80_columns_it_names_the_largest_cause() {
        let expected = "\
container      p50      p99    longest  waited for  throttled      used
crowded    4.08 ms  4.08 ms  ≤ 4.26 ms  self >99 %          –  1.00 CPU
throttled  2.04 ms  77.5 ms  ≤ 81.1 ms  quota 98 %       98 %  0.20 CPU
sleepy     24.6 µs  24.6 µs  ≤ 25.7 µs  idle 100 %          –  0.01 CPU
off              –        –          –  –                   –  0.00 CPU
";
        assert_eq!(rendered(80), expected);
    }

    #[test]
    fn with_more_columns_it_says_more() {
        let expected = "\
container      p50      p99    longest  wait per s  waited for              throttled      used
crowded    4.08 ms  4.08 ms  ≤ 4.26 ms      2.80 s  self >99 %                      –  1.00 CPU
throttled  2.04 ms  77.5 ms  ≤ 81.1 ms      810 ms  quota 98 %, system 2 %       98 %  0.20 CPU
sleepy     24.6 µs  24.6 µs  ≤ 25.7 µs     2.25 ms  idle 100 %                      –  0.01 CPU
off              –        –          –         0 s  –                               –  0.00 CPU
";
        assert_eq!(rendered(100), expected);
        let expected = "\
container      p50      p99    longest  wait per s  quota   self  neighbor  system   idle  unknown  throttled      used
crowded    4.08 ms  4.08 ms  ≤ 4.26 ms      2.80 s    0 %  >99 %      <1 %     0 %    0 %      0 %          –  1.00 CPU
throttled  2.04 ms  77.5 ms  ≤ 81.1 ms      810 ms   98 %    0 %       0 %     2 %    0 %      0 %       98 %  0.20 CPU
sleepy     24.6 µs  24.6 µs  ≤ 25.7 µs     2.25 ms    0 %    0 %       0 %     0 %  100 %      0 %          –  0.01 CPU
off              –        –          –         0 s      –      –         –       –      –        –          –  0.00 CPU
";
        assert_eq!(rendered(140), expected);
    }

    #[test]
    fn every_line_fits() {
        for columns in 80..160 {
            let widest = rendered(columns).lines().map(|line| line.chars().count()).max();
            assert!(widest.unwrap() <= columns, "{widest:?} in {columns}");
        }
    }

    #[test]
    fn an_empty_one_is_a_sentence() {
        assert_eq!(render(&[], 80), "No container has run yet: there is nothing to show.\n");
    }

    #[test]
    fn a_long_name_is_shown_whole() {
        let window = waited(&[(900, 25 * MS, Counted::Neighbor)], 100);
        let name = "a-name-as-long-as-they-are-in-kubernetes-0123456789";
        let table = render(&[TableRow { name: name.into(), window: &window }], 80);
        let of_name: String = table.lines().skip(1).filter_map(|line| line.split("  ").next()).collect();
        assert_eq!(of_name, name);
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    }
}
