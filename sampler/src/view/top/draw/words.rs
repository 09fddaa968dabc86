//! The selected row in words: what it waited for, what would help, and what else is known of it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};
use sampler_common::resources::LimitOf;

use super::super::super::quantity;
use super::super::super::verdict::bound;
use super::super::history::{History, Stalls};
use super::super::model::Row;
use super::super::name::printable;
use super::super::theme::Theme;
use super::demand;

/// Width of what stands before a line.
const LABEL: usize = 8;
/// So many neighbours are named.
const NEIGHBORS: usize = 3;

/// Draws as much as there is room for; what matters most comes first.
pub fn draw(row: &Row, history: &History, theme: Theme, area: Rect, buf: &mut Buffer) {
    let verdict = &row.verdict;
    let said = [
        ("", theme.strong(), Some(verdict.waited.clone())),
        ("", Style::new(), Some(verdict.why.clone())),
        ("→", theme.strong(), Some(verdict.help.clone())),
        ("Held by", Style::new(), held_by(row)),
        ("CPU", Style::new(), cpu(row)),
        ("Memory", Style::new(), memory(row)),
        ("Stalled", Style::new(), history.stalls(row.key).map(|stalls| stalled(&stalls))),
        ("Id", Style::new(), id(row)),
    ];
    let mut lines = Vec::new();
    for (label, style, text) in said {
        let Some(text) = text else { continue };
        let indent = match label.chars().count() {
            0 => 0,
            1 => 2,
            _ => LABEL,
        };
        let mut label = format!("{label:<indent$}");
        for part in wrap(&bound(&text), usize::from(area.width).saturating_sub(indent)) {
            let before = std::mem::replace(&mut label, " ".repeat(indent));
            lines.push(Line::from(vec![Span::styled(before, theme.faint()), Span::styled(part, style)]));
        }
    }
    Paragraph::new(lines).render(area, buf);
}

/// The text in lines of at most so many characters, broken at spaces; a longer word has a line of its own.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Who held the CPU while it waited.
fn held_by(row: &Row) -> Option<String> {
    let more = row.neighbors.len().saturating_sub(NEIGHBORS);
    let mut held: Vec<_> = row
        .neighbors
        .iter()
        .take(NEIGHBORS)
        .map(|neighbor| format!("{} {}", neighbor.name, quantity::percent(neighbor.share)))
        .collect();
    if more != 0 {
        held.push(format!("{more} more"));
    }
    (!held.is_empty()).then(|| held.join(", "))
}

fn cpu(row: &Row) -> Option<String> {
    let mut parts = vec![format!("used {}", quantity::cores_number(row.used_cores?))];
    if let Some(demand) = &row.demand {
        parts.push(format!("demand {}", demand::with_bounds(demand)));
    }
    parts.push(match row.window.limits.cpu {
        None => "no limit".into(),
        Some(limit) => {
            let of = if limit.of == LimitOf::Ancestor { " of a group above it" } else { "" };
            format!("limit {}{of}", quantity::cores_number(limit.cores()))
        }
    });
    if let Some(weight) = row.window.limits.cpu_weight {
        parts.push(format!("weight {weight}"));
    }
    Some(parts.join(", "))
}

fn memory(row: &Row) -> Option<String> {
    let memory = row.window.memory?;
    let of = match row.window.limits.memory_max_bytes {
        Some(max) => format!("of {}", quantity::bytes(max)),
        None => "(no limit)".into(),
    };
    let mut parts = vec![format!("{} {of}", quantity::bytes(memory.working_set_bytes))];
    if let Some(peak) = memory.peak_bytes {
        parts.push(format!("peak {}", quantity::bytes(peak)));
    }
    match row.oom_kills {
        None => {}
        Some(1) => parts.push("1 OOM kill".into()),
        Some(kills) => parts.push(format!("{kills} OOM kills")),
    }
    Some(parts.join(", "))
}

fn stalled(stalls: &Stalls) -> String {
    let percent = quantity::percent;
    format!(
        "CPU {} of {} (all threads {}), memory {}",
        percent(stalls.cpu_some),
        quantity::duration_ns(stalls.of_ns),
        percent(stalls.cpu_full),
        percent(stalls.memory_some),
    )
}

/// What it is besides its name.
fn id(row: &Row) -> Option<String> {
    let container = row.identity.container();
    let runtime = container.and_then(|container| container.runtime).map(|runtime| runtime.label());
    let short = container.map(|container| container.id.short());
    let qos = container.and_then(|container| container.pod.as_ref()?.qos).map(|qos| qos.label());
    // A container's path has nothing that is not said already.
    let path = (container.is_none() && !row.identity.path.is_empty()).then(|| printable(&row.identity.path));
    let parts: Vec<_> = [runtime, short, qos, path.as_deref()].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_broken_at_spaces_only() {
        assert_eq!(wrap("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrap("abcdef a", 4), ["abcdef", "a"]);
        assert_eq!(wrap("99\u{a0}% of it", 4), ["99\u{a0}%", "of", "it"]);
        assert_eq!(wrap("", 4), [""]);
    }

    proptest! {
        #[test]
        fn no_word_is_lost(text in "[a-z ]{0,60}", columns in 0usize..20) {
            prop_assert_eq!(wrap(&text, columns).join(" "), text);
        }
    }
}
