//! CPU limits: a quota of run time for every period, handed to CPUs in slices (`kernel/sched/fair.c`, CFS bandwidth
//! control; <https://docs.kernel.org/scheduler/sched-bwc.html>).

/// Length of a period, in ns: what a container runtime sets.
pub const PERIOD_NS: u64 = 100_000_000;
/// What a CPU takes from the quota at a time (`sched_cfs_bandwidth_slice_us`).
pub const SLICE_NS: i64 = 5_000_000;
/// What a CPU keeps of it when it has nothing left to run (`min_cfs_rq_runtime`).
pub const KEPT_NS: i64 = 1_000_000;

/// The limit of one group.
#[derive(Clone, Debug, Default)]
pub struct Bandwidth {
    /// Run time for each period, in ns; `None` is no limit.
    pub quota_ns: Option<u64>,
    /// What is left of it in this period.
    left_ns: i64,
    /// When the next period begins; `None` while nothing runs.
    pub refill_at_ns: Option<u64>,
    /// When what was given back is handed out.
    pub slack_at_ns: Option<u64>,
    /// Nothing was taken in this period.
    idle: bool,
    /// Periods in which it was active.
    pub periods: u64,
    /// Those of them in which it was throttled.
    pub throttled_periods: u64,
}

impl Bandwidth {
    /// Sets the limit, as a write to `cpu.max` does: with a new quota at once. Whatever was throttled has to be released.
    pub fn set(&mut self, quota_ns: Option<u64>, now: u64) {
        self.quota_ns = quota_ns;
        self.left_ns = quota_ns.unwrap_or(0) as i64;
        self.refill_at_ns = quota_ns.and(Some(now + PERIOD_NS));
        self.slack_at_ns = None;
        self.idle = false;
    }

    /// Brings what a CPU has up to `wanted_ns`, as far as the quota goes.
    pub fn take(&mut self, has_ns: &mut i64, wanted_ns: i64, now: u64) {
        if self.refill_at_ns.is_none() {
            self.left_ns = self.quota_ns.unwrap_or(0) as i64;
            self.refill_at_ns = Some(now + PERIOD_NS);
        }
        self.idle = false;
        let taken = (wanted_ns - *has_ns).clamp(0, self.left_ns.max(0));
        self.left_ns -= taken;
        *has_ns += taken;
    }

    /// A CPU gives back what it does not need.
    pub fn give_back(&mut self, has_ns: &mut i64, now: u64) {
        const SLACK_NS: u64 = 5_000_000;
        let surplus = *has_ns - KEPT_NS;
        if self.quota_ns.is_some() && surplus > 0 {
            *has_ns -= surplus;
            self.left_ns += surplus;
            if self.left_ns > SLICE_NS && self.slack_at_ns.is_none() {
                self.slack_at_ns = Some(now + SLACK_NS);
            }
        }
    }

    /// A new period begins; `throttled` is whether any CPU waits for it.
    pub fn refill(&mut self, now: u64, throttled: bool) {
        if self.idle && !throttled {
            self.refill_at_ns = None;
            return;
        }
        self.periods += 1;
        self.throttled_periods += u64::from(throttled);
        self.left_ns = self.quota_ns.unwrap_or(0) as i64;
        self.refill_at_ns = self.quota_ns.and(Some(now + PERIOD_NS));
        self.idle = true;
    }
}
