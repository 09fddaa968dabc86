//! What a window means, in plain words: who waited, how long, because of what, and what would help.
//!
//! The cause that a verdict names is the one with the largest share of the wait; where the longest delays
//! had another one, it says so. The remedies are those that the controller picks.

use comfy_table::{ContentArrangement, Table, presets};
use sampler_common::snapshot::{Cause, CgroupId};
use sampler_common::window::{Case, Window};

use super::quantity;
use super::table::{causes_by_share, wait_per_second};

/// With fewer delays than this one odd delay is more than 5 % of all, and a percentile says nothing.
const ENOUGH_DELAYS: u64 = 20;
/// A container whose wait stays below both of these hardly waited. A slice of the scheduler is about
/// 3 ms: what is well below it is the cost of waking up, and nobody can be asked to run less for it ...
const SHORT_DELAY_NS: u64 = 1_000_000;
/// ... and a wait of less than 1 % of one CPU's time is lost in any other noise.
const LITTLE_WAIT_PER_SECOND: f64 = 0.01;
/// A cause behind the largest one is told from this share on: less would not change what to do.
const WORTH_TELLING: f64 = 0.2;
/// A neighbour is named from this share of the wait on, and at most [`MOST_NAMED`] are.
const WORTH_NAMING: f64 = 0.1;
const MOST_NAMED: usize = 2;
/// From this share of throttled periods on, a limit is part of the answer. One period in a hundred is
/// where the 99th percentile begins to see it.
const THROTTLED: f64 = 0.01;

/// One container's verdict, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The container.
    pub who: String,
    /// The largest cause of its wait; `None` where it did not wait.
    pub cause: Option<Cause>,
    /// It waited so little that nothing need be done, whatever the cause.
    pub hardly: bool,
    /// How long it waited.
    pub waited: String,
    /// Because of what.
    pub why: String,
    /// What would help.
    pub help: String,
}

/// What is known beside the window.
pub struct Surroundings<'a> {
    /// A container's name; `None` for one that is not known (any more).
    pub name: &'a dyn Fn(CgroupId) -> Option<String>,
    /// Who used most CPU outside any container, for waits because of the system, and how much, in cores.
    pub system: Option<(String, f64)>,
}

/// What this container's window means.
pub fn verdict(who: &str, window: &Window, around: &Surroundings<'_>) -> Verdict {
    let causes = causes_by_share(window);
    let delays = window.latency.count();
    let per_second = wait_per_second(window).unwrap_or(0.0);
    let p99_ns = window.p99().unwrap_or(0);
    let hardly = p99_ns < SHORT_DELAY_NS && per_second < LITTLE_WAIT_PER_SECOND;
    let (waited, why, help) = match causes.first() {
        None if delays == 0 && window.usage_ns == 0 => {
            ("Not at all".into(), "None of its threads wanted to run.".into(), NOTHING.into())
        }
        None => ("Not at all".into(), "A CPU was free whenever it wanted one.".into(), NOTHING.into()),
        Some(_) if delays < ENOUGH_DELAYS && per_second < LITTLE_WAIT_PER_SECOND => (
            format!("Too few delays to tell: {delays}"),
            format!("A percentile needs {ENOUGH_DELAYS} delays or more."),
            "Measure for longer.".into(),
        ),
        Some((cause, share)) => {
            let help = if hardly { NOTHING.into() } else { help(*cause, window, around) };
            let little = if hardly { "Hardly: " } else { "" };
            let p99 = quantity::quantile(&window.latency, 0.99).unwrap_or_default();
            let waited = format!("{little}p99 {p99}, waits {} per s", quantity::duration(per_second));
            (waited, why(*cause, *share, window, around) + &beside(&causes, window), help)
        }
    };
    let note = match window.case {
        Case::Vanished => " It is gone now.",
        Case::Reset => " Counted since a restart of the sampler only.",
        Case::New | Case::Continued => "",
    };
    Verdict {
        who: who.into(),
        cause: causes.first().map(|(cause, _)| *cause),
        hardly,
        waited,
        why: why + note,
        help,
    }
}

const NOTHING: &str = "Nothing to do.";

fn why(cause: Cause, share: f64, window: &Window, around: &Surroundings<'_>) -> String {
    const ALL_BUT_NOTHING: f64 = 0.9995;
    let wait = match share {
        s if s >= ALL_BUT_NOTHING => "all of its wait".to_owned(),
        s => format!("{} of its wait", quantity::percent(s).replace('>', "over ")),
    };
    match cause {
        Cause::Quota => {
            let held_back = match window.throttled_share() {
                Some(share) if share > 0.0 => {
                    format!("Its CPU limit held it back in {} of all periods", quantity::percent(share))
                }
                _ if limited_above(window) => "The CPU limit of a group above it held it back".into(),
                _ => "A CPU limit held it back".into(),
            };
            format!("{held_back}, which is {wait}.")
        }
        Cause::Own => {
            let ran = window.runnable().zip(window.used_cores());
            let ran = ran
                .map(|(ready, ran)| format!(": on average {ready:.1} were ready to run, and {ran:.1} ran"));
            format!("For {wait} its own other threads held the CPU{}.", ran.unwrap_or_default())
        }
        Cause::Neighbor => {
            let called = |held: &Held| {
                let gone = || format!("cgroup {}, which is gone", held.id);
                held.name.clone().unwrap_or_else(gone)
            };
            match holders(window, around).as_slice() {
                [] => format!("For {wait} other containers held the CPU, too many to name."),
                [one] => format!("For {wait} another container held the CPU: {}.", called(one)),
                more => {
                    let more = more
                        .iter()
                        .map(|held| format!("{} ({})", called(held), quantity::percent(held.share)));
                    format!("For {wait} other containers held the CPU: {}.", joined(more, " and "))
                }
            }
        }
        Cause::System => {
            let who = around
                .system
                .as_ref()
                .map(|(name, cores)| format!(" The busiest was {name} ({}).", quantity::cores(*cores)));
            format!("For {wait} processes outside any container held the CPU.{}", who.unwrap_or_default())
        }
        Cause::Idle => format!("For {wait} nobody held the CPU: this is what waking up takes."),
        Cause::Unknown => unknown(&wait, window),
    }
}

/// Why the cause cannot be told.
fn unknown(wait: &str, window: &Window) -> String {
    let causes = &window.causes;
    if causes.untold_ns > causes.away_ns.max(causes.beyond_ns) {
        let throttled = match window.throttled_share() {
            Some(share) if share > 0.0 => {
                format!("was throttled in {} of all periods", quantity::percent(share))
            }
            _ => "was throttled".into(),
        };
        format!(
            "It {throttled}, but when cannot be told, because this kernel does not let the throttle functions \
             be hooked: the cause of {wait} is unknown."
        )
    } else if causes.away_ns >= causes.beyond_ns {
        format!("For {wait} it was queued on another CPU, before it was moved: who held that one is unknown.")
    } else {
        format!("For {wait} it is forgotten who held the CPU: it waited too long.")
    }
}

/// The other causes that count, and that of the longest delays if it is another.
fn beside(causes: &[(Cause, f64)], window: &Window) -> String {
    let more: Vec<_> = causes
        .iter()
        .skip(1)
        .filter(|(_, share)| *share >= WORTH_TELLING)
        .map(|(cause, share)| format!("{} {}", quantity::percent(*share), cause.label()))
        .collect();
    let mut text = String::new();
    if !more.is_empty() {
        text = format!(" Beside it: {}.", more.join(", "));
    }
    let main = causes.first().map(|(cause, _)| *cause);
    match window.tail_cause() {
        Some(tail) if Some(tail) != main && window.latency.count() >= ENOUGH_DELAYS => {
            text + &format!(" The longest delays were {}.", tail.label())
        }
        _ => text,
    }
}

fn help(cause: Cause, window: &Window, around: &Surroundings<'_>) -> String {
    let throttled_share = window.throttled_share().unwrap_or(0.0);
    let throttled = throttled_share >= THROTTLED;
    match cause {
        Cause::Quota if limited_above(window) => {
            "Raise the CPU limit of the group above it (its pod).".into()
        }
        Cause::Quota => {
            let used = window.used_cores().map(|used| format!("; it used {}", quantity::cores(used)));
            format!("Raise its CPU limit{}.", used.unwrap_or_default())
        }
        Cause::Own if throttled => format!(
            "More CPUs or fewer threads. A higher CPU limit helps only with the {} of periods in which it was \
             throttled.",
            quantity::percent(throttled_share)
        ),
        Cause::Own if limited_above(window) => {
            "More CPUs or fewer threads. A higher CPU limit of the group above it (its pod) helps only while that \
             is throttled."
                .into()
        }
        Cause::Own => {
            "More CPUs or fewer threads. A higher CPU limit will not help: it was not throttled.".into()
        }
        Cause::Neighbor => {
            let there = joined(holders(window, around).into_iter().filter_map(|held| held.name), " or ");
            if there.is_empty() {
                "Raise its CPU request (its weight), or move it to a less busy node.".into()
            } else {
                format!("Raise its CPU request (its weight), or cap or move {there}.")
            }
        }
        Cause::System => match &around.system {
            Some((name, _)) => format!("Reserve CPU for the system, or limit {name}."),
            None => "Reserve CPU for the system (the kubelet's systemReserved).".into(),
        },
        Cause::Idle => NOTHING.into(),
        Cause::Unknown if throttled => {
            "Raise its CPU limit: until the throttling is gone the rest cannot be told.".into()
        }
        Cause::Unknown if limited_above(window) => {
            "See to the CPU limit above it first: until the throttling is gone the rest cannot be told."
                .into()
        }
        Cause::Unknown => "Measure for longer.".into(),
    }
}

/// Whether it was throttled by limits above it alone.
fn limited_above(window: &Window) -> bool {
    window.throttling.throttled_periods == 0 && window.throttling.ancestors_throttled_periods != 0
}

/// A neighbour that held the CPU.
struct Held {
    id: CgroupId,
    name: Option<String>,
    /// Its part of all the wait.
    share: f64,
}

/// The neighbours that held the CPU for much of the wait.
fn holders(window: &Window, around: &Surroundings<'_>) -> Vec<Held> {
    let total_ns = window.causes.total().max(1) as f64;
    window
        .neighbors
        .iter()
        .map(|(id, ns)| (*id, *ns as f64 / total_ns))
        .filter(|(_, share)| *share >= WORTH_NAMING)
        .take(MOST_NAMED)
        .map(|(id, share)| Held { id, name: (around.name)(id), share })
        .collect()
}

fn joined(words: impl Iterator<Item = String>, between: &str) -> String {
    words.collect::<Vec<_>>().join(between)
}

/// The verdicts as a table of words, `columns` wide at most.
pub fn render(verdicts: &[Verdict], columns: usize) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(columns).unwrap_or(u16::MAX))
        .set_header(["who", "waited", "why", "what would help"]);
    for verdict in verdicts {
        // Each number on a line of its own, with its unit.
        let waited = verdict.waited.replace(", ", "\n").replace(": ", ":\n");
        table.add_row([&verdict.who, &waited, &verdict.why, &verdict.help].map(|text| bound(text)));
    }
    for index in 0..4 {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, if index == 3 { 0 } else { 2 }));
        }
    }
    super::lines(&table).replace(BOUND, " ")
}

/// A space at which no line is broken.
const BOUND: &str = "\u{a0}";

/// The text with every number bound to its unit.
pub fn bound(text: &str) -> String {
    let mut bound = String::with_capacity(text.len());
    let mut last = ' ';
    for next in text.chars() {
        if next == ' ' && last.is_ascii_digit() {
            bound += BOUND
        } else {
            bound.push(next)
        }
        last = next;
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::super::sample::{MS, beside, quiet, throttled, waited};
    use super::*;
    use sampler_common::abi::Cause as Counted;
    use sampler_common::snapshot::{Causes, Durations};

    fn name(id: CgroupId) -> Option<String> {
        (id.0 < 10).then(|| format!("shop-{id}"))
    }

    fn of(window: &Window) -> Verdict {
        verdict("web", window, &Surroundings { name: &name, system: None })
    }

    #[track_caller]
    fn says(window: &Window, waited: &str, why: &str, help: &str) {
        let said = of(window);
        assert_eq!([said.waited.as_str(), &said.why, &said.help], [waited, why, help]);
    }

    #[test]
    fn quota() {
        says(
            &throttled(waited(&[(100, 80 * MS, Counted::Quota)], 2_000), 100, 98, 0),
            "p99 77.5 ms, waits 800 ms per s",
            "Its CPU limit held it back in 98 % of all periods, which is all of its wait.",
            "Raise its CPU limit; it used 0.20 CPU.",
        );
        says(
            &throttled(waited(&[(100, 80 * MS, Counted::Quota)], 2_000), 0, 0, 90),
            "p99 77.5 ms, waits 800 ms per s",
            "The CPU limit of a group above it held it back, which is all of its wait.",
            "Raise the CPU limit of the group above it (its pod).",
        );
        says(
            &waited(&[(100, 80 * MS, Counted::Quota)], 2_000),
            "p99 77.5 ms, waits 800 ms per s",
            "A CPU limit held it back, which is all of its wait.",
            "Raise its CPU limit; it used 0.20 CPU.",
        );
    }

    #[test]
    fn own_threads() {
        let crowded = waited(&[(7_500, 4 * MS, Counted::Own)], 10_000);
        says(
            &crowded,
            "p99 4.08 ms, waits 3.00 s per s",
            "For all of its wait its own other threads held the CPU: on average 4.0 were ready to run, and 1.0 ran.",
            "More CPUs or fewer threads. A higher CPU limit will not help: it was not throttled.",
        );
        says(
            &throttled(crowded.clone(), 0, 0, 25),
            "p99 4.08 ms, waits 3.00 s per s",
            "For all of its wait its own other threads held the CPU: on average 4.0 were ready to run, and 1.0 ran.",
            "More CPUs or fewer threads. A higher CPU limit of the group above it (its pod) helps only while that is \
             throttled.",
        );
        says(
            &throttled(crowded, 100, 25, 0),
            "p99 4.08 ms, waits 3.00 s per s",
            "For all of its wait its own other threads held the CPU: on average 4.0 were ready to run, and 1.0 ran.",
            "More CPUs or fewer threads. A higher CPU limit helps only with the 25 % of periods in which it \
             was throttled.",
        );
    }

    #[test]
    fn neighbors() {
        let waits = waited(&[(1_000, 5 * MS, Counted::Neighbor)], 5_000);
        says(
            &waits,
            "p99 4.85 ms, waits 500 ms per s",
            "For all of its wait other containers held the CPU, too many to name.",
            "Raise its CPU request (its weight), or move it to a less busy node.",
        );
        says(
            &beside(waits.clone(), &[(3, 4_900), (4, 100)]),
            "p99 4.85 ms, waits 500 ms per s",
            "For all of its wait another container held the CPU: shop-3.",
            "Raise its CPU request (its weight), or cap or move shop-3.",
        );
        says(
            &beside(waits.clone(), &[(3, 2_500), (77, 1_500), (5, 1_000)]),
            "p99 4.85 ms, waits 500 ms per s",
            "For all of its wait other containers held the CPU: shop-3 (50 %) and cgroup 77, which is gone \
             (30 %).",
            "Raise its CPU request (its weight), or cap or move shop-3.",
        );
    }

    #[test]
    fn system() {
        let waits = waited(&[(1_000, 5 * MS, Counted::System)], 5_000);
        says(
            &waits,
            "p99 4.85 ms, waits 500 ms per s",
            "For all of its wait processes outside any container held the CPU.",
            "Reserve CPU for the system (the kubelet's systemReserved).",
        );
        let known = Surroundings { name: &name, system: Some(("system.slice/backup.service".into(), 0.5)) };
        let said = verdict("web", &waits, &known);
        assert_eq!(
            said.why,
            "For all of its wait processes outside any container held the CPU. The busiest was \
             system.slice/backup.service (0.50 CPU)."
        );
        assert_eq!(said.help, "Reserve CPU for the system, or limit system.slice/backup.service.");
    }

    #[test]
    fn waking_up() {
        says(
            &waited(&[(1_000, 20_000, Counted::Idle)], 100),
            "Hardly: p99 20.6 µs, waits 2.00 ms per s",
            "For all of its wait nobody held the CPU: this is what waking up takes.",
            "Nothing to do.",
        );
        says(
            &waited(&[(1_000, 2 * MS, Counted::Idle)], 100),
            "p99 2.04 ms, waits 200 ms per s",
            "For all of its wait nobody held the CPU: this is what waking up takes.",
            "Nothing to do.",
        );
    }

    #[test]
    fn what_cannot_be_told() {
        says(
            &waited(&[(1_000, 5 * MS, Counted::Away)], 5_000),
            "p99 4.85 ms, waits 500 ms per s",
            "For all of its wait it was queued on another CPU, before it was moved: who held that one is \
             unknown.",
            "Measure for longer.",
        );
        says(
            &waited(&[(1_000, 5 * MS, Counted::Beyond)], 5_000),
            "p99 4.85 ms, waits 500 ms per s",
            "For all of its wait it is forgotten who held the CPU: it waited too long.",
            "Measure for longer.",
        );
    }

    /// A window of a container that was throttled where the hooks are missing.
    fn untold(above: bool) -> Window {
        let waits = waited(&[(1_000, 5 * MS, Counted::Neighbor)], 5_000);
        let mut window = if above { throttled(waits, 0, 0, 50) } else { throttled(waits, 100, 50, 0) };
        window.throttling.durations = Durations::HooksUnavailable;
        window.causes = Causes { untold_ns: window.causes.total(), ..Causes::default() };
        window.coarse = Default::default();
        window.unnamed_neighbor_ns = 0;
        window
    }

    #[test]
    fn throttled_where_the_hooks_are_missing() {
        says(
            &untold(false),
            "p99 4.85 ms, waits 500 ms per s",
            "It was throttled in 50 % of all periods, but when cannot be told, because this kernel does not \
             let the throttle functions be hooked: the cause of all of its wait is unknown.",
            "Raise its CPU limit: until the throttling is gone the rest cannot be told.",
        );
        says(
            &untold(true),
            "p99 4.85 ms, waits 500 ms per s",
            "It was throttled, but when cannot be told, because this kernel does not let the throttle \
             functions be hooked: the cause of all of its wait is unknown.",
            "See to the CPU limit above it first: until the throttling is gone the rest cannot be told.",
        );
    }

    #[test]
    fn no_delays() {
        says(&quiet(), "Not at all", "None of its threads wanted to run.", "Nothing to do.");
        assert_eq!(of(&quiet()).cause, None);
        says(&waited(&[], 10_000), "Not at all", "A CPU was free whenever it wanted one.", "Nothing to do.");
    }

    #[test]
    fn too_few_delays() {
        says(
            &waited(&[(3, MS, Counted::Neighbor)], 100),
            "Too few delays to tell: 3",
            "A percentile needs 20 delays or more.",
            "Measure for longer.",
        );
        // Few and long ones do tell: the share of each cause is by time.
        says(
            &waited(&[(3, 900 * MS, Counted::Own)], 1_000),
            "p99 877 ms, waits 270 ms per s",
            "For all of its wait its own other threads held the CPU: on average 0.4 were ready to run, and 0.1 ran.",
            "More CPUs or fewer threads. A higher CPU limit will not help: it was not throttled.",
        );
    }

    #[test]
    fn a_mixed_wait_names_the_second_cause_and_that_of_the_longest() {
        let mixed = [(1_000, 3 * MS, Counted::Own), (20, 80 * MS, Counted::Quota)];
        says(
            &throttled(waited(&mixed, 5_000), 100, 20, 0),
            "p99 77.5 ms, waits 460 ms per s",
            "For 65 % of its wait its own other threads held the CPU: on average 1.0 were ready to run, and 0.5 ran. \
             Beside it: 35 % quota. The longest delays were quota.",
            "More CPUs or fewer threads. A higher CPU limit helps only with the 20 % of periods in which it \
             was throttled.",
        );
    }

    #[test]
    fn a_container_that_is_gone_and_one_counted_in_part() {
        let crowded = waited(&[(7_500, 4 * MS, Counted::Own)], 10_000);
        let gone = Window { case: Case::Vanished, ..crowded.clone() };
        assert_eq!(
            of(&gone).why,
            "For all of its wait its own other threads held the CPU: on average 4.0 were ready to run, and 1.0 ran. It \
             is gone now."
        );
        let reset = Window { case: Case::Reset, ..crowded };
        assert_eq!(
            of(&reset).why,
            "For all of its wait its own other threads held the CPU: on average 4.0 were ready to run, and 1.0 ran. \
             Counted since a restart of the sampler only."
        );
    }

    #[test]
    fn words_wrap_within_the_columns() {
        let said = [of(&untold(false)), of(&quiet())];
        for columns in [80, 100, 140] {
            let table = render(&said, columns);
            assert!(table.lines().all(|line| line.chars().count() <= columns), "{table}");
            assert!(!table.lines().any(|line| line.trim_start().starts_with('%')), "{table}");
        }
        assert_eq!(
            render(&said[1..], 80),
            "\
who  waited      why                                 what would help
web  Not at all  None of its threads wanted to run.  Nothing to do.
"
        );
    }
}
