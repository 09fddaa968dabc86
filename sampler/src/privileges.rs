//! Privileges: those that are needed to attach, checked before, and given up after.
//!
//! | capability | for | until |
//! |---|---|---|
//! | `CAP_BPF` | making maps, loading programs | attached |
//! | `CAP_PERFMON` | tracing programs | attached |
//! | `CAP_SYS_ADMIN` | `--bpf-stats` only: the kernel's switch for timing programs | attached |
//!
//! What is read afterwards (rows mapped into memory, files of cgroups, which everybody may read) needs none. One thing
//! may: before Linux 5.19 a kernel with `kernel.unprivileged_bpf_disabled` refuses bpf(2) to everybody without
//! `CAP_BPF`, even on maps that are open, and the reader gives slots back with it. Whether it does is tried out
//! beforehand, in a thread that has no capability, and only where it does `CAP_BPF` is kept.

use std::fmt;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use thiserror::Error;

use crate::kernel::load::Programs;

/// Why privileges are not what they must be.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// The capabilities of this process do not suffice.
    #[error(
        "missing {missing}: run as root, or give the process {needed} (in a pod: \
         securityContext.capabilities.add; under systemd: AmbientCapabilities=)"
    )]
    Missing {
        /// Those that are not there.
        missing: Names,
        /// All that are needed.
        needed: Names,
    },
    /// A capability set cannot be read or written.
    #[error("cannot {what} the capabilities of this process")]
    Capabilities {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: caps::errors::CapsError,
    },
    /// `PR_SET_NO_NEW_PRIVS` failed.
    #[error("cannot give up gaining privileges (no_new_privs)")]
    NoNewPrivileges(#[source] Errno),
}

/// Names of capabilities, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(Vec<Capability>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(Capability::to_string).collect();
        match &names[..] {
            [] => f.write_str("none"),
            [one] => f.write_str(one),
            [first @ .., last] => write!(f, "{} and {last}", first.join(", ")),
        }
    }
}

/// The capabilities that measuring needs at start.
pub fn needed(bpf_stats: bool) -> Vec<Capability> {
    let mut needed = vec![Capability::CAP_BPF, Capability::CAP_PERFMON];
    if bpf_stats {
        needed.push(Capability::CAP_SYS_ADMIN);
    }
    needed
}

/// Says which of the needed capabilities the process lacks.
pub fn check(bpf_stats: bool) -> Result<(), PrivilegeError> {
    let effective = caps::read(None, CapSet::Effective).map_err(failed("read"))?;
    match missing(&effective, &needed(bpf_stats)) {
        missing if missing.is_empty() => Ok(()),
        missing => Err(PrivilegeError::Missing { missing: Names(missing), needed: Names(needed(bpf_stats)) }),
    }
}

/// Those that are needed and not there. `CAP_SYS_ADMIN` stands for the other two, as the kernel takes it.
fn missing(effective: &CapsHashSet, needed: &[Capability]) -> Vec<Capability> {
    let admin = effective.contains(&Capability::CAP_SYS_ADMIN);
    needed.iter().copied().filter(|one| !admin && !effective.contains(one)).collect()
}

/// Gives up everything that is not needed any more, for this thread and all that it will start: every capability from
/// every set, and gaining any by executing a program. Returns what is kept.
///
/// To be called before other threads are started: each has its own.
pub fn drop_all(programs: &Programs) -> Result<Names, PrivilegeError> {
    let kept = if bpf_is_allowed_without(programs)? { vec![] } else { vec![Capability::CAP_BPF] };
    prctl::set_no_new_privs().map_err(PrivilegeError::NoNewPrivileges)?;
    keep_only(&kept)?;
    Ok(Names(kept))
}

/// Whether the kernel allows bpf(2) on what is open to a thread without capabilities.
fn bpf_is_allowed_without(programs: &Programs) -> Result<bool, PrivilegeError> {
    let tried = std::thread::scope(|scope| {
        let tried = scope.spawn(|| keep_only(&[]).map(|()| programs.switch_info().is_some())).join();
        tried.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(tried)
}

/// Leaves the calling thread these capabilities.
fn keep_only(kept: &[Capability]) -> Result<(), PrivilegeError> {
    let kept: CapsHashSet = kept.iter().copied().collect();
    // Only who has CAP_SETPCAP may shrink the bounding set, and with no_new_privs and nothing permitted it
    // bounds nothing that could be had.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed("read"))? {
        for one in caps::read(None, CapSet::Bounding).map_err(failed("read"))?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *one).map_err(failed("give up"))?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(failed("give up"))?;
    caps::clear(None, CapSet::Inheritable).map_err(failed("give up"))?;
    caps::set(None, CapSet::Effective, &kept).map_err(failed("give up"))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed("give up"))
}

fn failed(what: &'static str) -> impl Fn(caps::errors::CapsError) -> PrivilegeError {
    move |source| PrivilegeError::Capabilities { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_what_is_missing_and_what_is_needed() {
        let effective = CapsHashSet::from_iter([Capability::CAP_BPF]);
        let missing = missing(&effective, &needed(false));
        let error = PrivilegeError::Missing { missing: Names(missing), needed: Names(needed(false)) };
        assert_eq!(
            error.to_string(),
            "missing CAP_PERFMON: run as root, or give the process CAP_BPF and CAP_PERFMON (in a pod: \
             securityContext.capabilities.add; under systemd: AmbientCapabilities=)"
        );
    }

    #[test]
    fn sys_admin_stands_for_all_and_nothing_stands_for_it() {
        let admin = CapsHashSet::from_iter([Capability::CAP_SYS_ADMIN]);
        assert!(missing(&admin, &needed(true)).is_empty());
        let both = CapsHashSet::from_iter([Capability::CAP_BPF, Capability::CAP_PERFMON]);
        assert!(missing(&both, &needed(false)).is_empty());
        assert_eq!(missing(&both, &needed(true)), [Capability::CAP_SYS_ADMIN]);
    }

    #[test]
    fn names_are_listed_as_one_writes_them() {
        let names = Names(needed(true));
        assert_eq!(names.to_string(), "CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN");
        assert_eq!(Names(vec![]).to_string(), "none");
    }

    #[test]
    fn a_thread_that_gave_up_everything_has_nothing() {
        let left = std::thread::spawn(|| {
            keep_only(&[]).unwrap();
            [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient]
                .map(|set| caps::read(None, set).unwrap().len())
        });
        assert_eq!(left.join().unwrap(), [0; 4]);
    }
}
