//! What people see of windows: a table of numbers, a verdict in plain words, and both of them live. Pure but for
//! [`top`]'s terminal.

pub mod quantity;
pub mod table;
pub mod top;
pub mod verdict;

/// The lines of a table: no borders, no blanks at the ends of lines, each line with its end.
fn lines(table: &comfy_table::Table) -> String {
    table.trim_fmt().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod sample {
    use sampler_common::abi::Cause;
    use sampler_common::buckets::{bucket, octave};
    use sampler_common::snapshot::{Causes, CgroupId};
    use sampler_common::window::Window;

    pub const MS: u64 = 1_000_000;

    /// Ten seconds in which nothing happened.
    pub fn quiet() -> Window {
        Window { length_ns: 10_000 * MS, ..Window::default() }
    }

    /// Ten seconds with so many delays of one length, each of one cause, and so many ms of CPU used.
    pub fn waited(delays: &[(u64, u64, Cause)], used_ms: u64) -> Window {
        let mut window = Window { usage_ns: used_ms * MS, ..quiet() };
        for (count, ns, cause) in delays {
            let mut wait_ns = [0; sampler_common::abi::CAUSES];
            wait_ns[*cause as usize] = count * ns;
            window.causes.merge(&Causes::from_row(&wait_ns));
            for _ in 0..*count {
                window.latency.record(*ns);
            }
            if let Some(coarse) = window.coarse.get_mut(*cause as usize) {
                coarse.counts[octave(bucket(*ns)) as usize] += count;
            }
        }
        window.unnamed_neighbor_ns = window.causes.neighbor_ns;
        window
    }

    /// The same, with neighbours that held the CPU for so many ms.
    pub fn beside(mut window: Window, neighbors_ms: &[(u64, u64)]) -> Window {
        window.neighbors = neighbors_ms.iter().map(|(id, ms)| (CgroupId(*id), ms * MS)).collect();
        let named_ns: u64 = window.neighbors.iter().map(|(_, ns)| ns).sum();
        window.unnamed_neighbor_ns = window.causes.neighbor_ns - named_ns;
        window
    }

    /// The same, with so many periods, throttled ones and throttled periods above.
    pub fn throttled(mut window: Window, periods: u64, throttled: u64, above: u64) -> Window {
        window.throttling.periods = periods;
        window.throttling.throttled_periods = throttled;
        window.throttling.ancestors_throttled_periods = above;
        window
    }
}
