//! A thread of a load as an argument of the program `load`: `spin`, `yield`, `sleep` or `duty:RUN:PERIOD` (both in
//! ns), and behind it `@CPU` where it is to stay on one CPU.

use std::str::FromStr;
use std::time::Duration;

use super::{Thread, Work};

impl Thread {
    /// As an argument; `None` for work that makes sense only in a child of the process that asks for it.
    pub fn argument(&self) -> Option<String> {
        let work = match self.work {
            Work::Spin => "spin".to_owned(),
            Work::Yield => "yield".to_owned(),
            Work::Sleep => "sleep".to_owned(),
            Work::Duty { run, period } => format!("duty:{}:{}", run.as_nanos(), period.as_nanos()),
            Work::Cycle { .. } | Work::Serve { .. } | Work::Pass { .. } | Work::Roam { .. } => return None,
        };
        Some(match self.cpu {
            Some(cpu) => format!("{work}@{cpu}"),
            None => work,
        })
    }
}

impl FromStr for Thread {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no thread: spin, yield, sleep or duty:RUN_NS:PERIOD_NS, and @CPU");
        let (work, cpu) = match text.split_once('@') {
            Some((work, cpu)) => (work, Some(cpu.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let ns = |text: &str| text.parse().map(Duration::from_nanos).map_err(|_| wrong());
        let work = match work.split(':').collect::<Vec<_>>()[..] {
            ["spin"] => Work::Spin,
            ["yield"] => Work::Yield,
            ["sleep"] => Work::Sleep,
            ["duty", run, period] => match (ns(run)?, ns(period)?) {
                // A period of nothing has no next one.
                (_, Duration::ZERO) => return Err(wrong()),
                (run, period) => Work::Duty { run, period },
            },
            _ => return Err(wrong()),
        };
        Ok(Self { cpu, work })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for text in ["spin", "yield@3", "sleep@0", "duty:100000:2000000", "duty:1:2@1"] {
            assert_eq!(text.parse::<Thread>().unwrap().argument().as_deref(), Some(text));
        }
        let duty = Work::Duty { run: Duration::from_micros(100), period: Duration::from_millis(2) };
        assert_eq!(duty.on(1).argument().as_deref(), Some("duty:100000:2000000@1"));
    }

    #[test]
    fn nonsense_is_refused_with_what_is_right() {
        for text in ["", "spin@", "spin@-1", "spin:1", "duty:1", "duty:1:0", "duty:a:b", "pass"] {
            assert!(text.parse::<Thread>().unwrap_err().contains("duty:RUN_NS:PERIOD_NS"), "{text}");
        }
    }
}
