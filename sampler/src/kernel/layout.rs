//! What the programs must know of the running kernel, found in its BTF.

use sampler_common::abi::Kernel;

use super::btf::{Btf, BtfError};

/// The controller whose groups get a row each: one that is enabled down to the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Enabled for every container by the kubelet, and by Docker and podman under systemd.
    Cpu,
    /// What systemd enables for its units by default.
    Memory,
    /// What systemd enables for its units by default, from version 238.
    Pids,
}

impl Key {
    /// All, best first: with `cpu`, a row and what can be throttled are the same group.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    /// Its name in `cgroup.controllers`.
    pub const fn controller(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    /// Its enumerator in the kernel's `enum cgroup_subsys_id`.
    const fn enumerator(self) -> &'static str {
        match self {
            Self::Cpu => "cpu_cgrp_id",
            Self::Memory => "memory_cgrp_id",
            Self::Pids => "pids_cgrp_id",
        }
    }
}

const DELAY: &str = "run-queue delays cannot be read without CONFIG_SCHED_INFO (needs Linux 5.12 or later)";
const GROUP: &str = "threads cannot be charged to cgroups without CONFIG_CGROUPS and CONFIG_FAIR_GROUP_SCHED";
const LIMIT: &str = "throttling cannot be told without CONFIG_CFS_BANDWIDTH";
const OOM: &str = "kills for want of memory cannot be told (needs Linux 4.10 or later)";
const CONTROLLER: &str = "rows cannot be keyed by a controller that the kernel was built without";

/// Finds every offset, for rows keyed by `key` in the hierarchy of that id and a map of `slots` slots.
pub fn of(btf: &Btf, key: Key, hierarchy_id: u32, slots: u32) -> Result<Kernel, BtfError> {
    let subsystem = btf.enumerator("cgroup_subsys_id", key.enumerator(), CONTROLLER)?;
    let field = |structure, path, hint| btf.offset(structure, path, hint);
    Ok(Kernel {
        task_pid: field("task_struct", "pid", DELAY)?,
        task_tgid: field("task_struct", "tgid", OOM)?,
        task_signal: field("task_struct", "signal", OOM)?,
        signal_oom_mm: field("signal_struct", "oom_mm", OOM)?,
        task_on_rq: field("task_struct", "on_rq", DELAY)?,
        task_cgroups: field("task_struct", "cgroups", GROUP)?,
        task_sched_task_group: field("task_struct", "sched_task_group", GROUP)?,
        task_cfs_rq: field("task_struct", "se.cfs_rq", GROUP)?,
        task_run: field("task_struct", "se.sum_exec_runtime", DELAY)?,
        task_pcount: field("task_struct", "sched_info.pcount", DELAY)?,
        task_run_delay: field("task_struct", "sched_info.run_delay", DELAY)?,
        task_last_queued: field("task_struct", "sched_info.last_queued", DELAY)?,
        cfs_rq_rq: field("cfs_rq", "rq", GROUP)?,
        cfs_rq_tg: field("cfs_rq", "tg", GROUP)?,
        cfs_rq_throttled_clock: field("cfs_rq", "throttled_clock", LIMIT)?,
        rq_clock: field("rq", "clock", DELAY)?,
        rq_cpu: field("rq", "cpu", DELAY)?,
        css_set_key: field("css_set", "subsys", GROUP)? + subsystem * size_of::<u64>() as u32,
        css_cgroup: field("cgroup_subsys_state", "cgroup", GROUP)?,
        css_id: field("cgroup_subsys_state", "id", GROUP)?,
        css_serial: field("cgroup_subsys_state", "serial_nr", GROUP)?,
        cgroup_kn: field("cgroup", "kn", GROUP)?,
        cgroup_root: field("cgroup", "root", GROUP)?,
        root_hierarchy_id: field("cgroup_root", "hierarchy_id", GROUP)?,
        hierarchy_id,
        kn_id: field("kernfs_node", "id", GROUP)?,
        tg_css: field("task_group", "css", GROUP)?,
        slots,
    })
}
