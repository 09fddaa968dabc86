//! A CPU that nobody else gets, so that what is queued on it stays queued for as long as the test wants.

use std::time::Duration;

use loadline_tests::load::{self, Process, Schedstat, until};
use nix::libc;
use nix::unistd::Pid;

/// A real-time thread that spins on a CPU until this is dropped. Others get nothing there, for about half a
/// second: after that the kernel sees to it that they do not starve.
pub struct Hold {
    process: Process,
}

impl Hold {
    /// Takes a CPU, from the caller's cgroup. Returns when it has it.
    pub fn cpu(cpu: usize) -> Self {
        let process = Process::spawn(None, || {
            load::pin(Pid::from_raw(0), &[cpu]).unwrap();
            real_time(1);
            loop {
                std::hint::spin_loop();
            }
        })
        .unwrap();
        let pid = process.pid();
        until("a real-time thread", Duration::from_secs(10), || {
            // SAFETY: asks for a number.
            Ok(unsafe { libc::sched_getscheduler(pid.as_raw()) } & !libc::SCHED_RESET_ON_FORK
                == libc::SCHED_FIFO)
        })
        .unwrap();
        Self { process }
    }

    /// Gives the CPU back.
    pub fn release(self) {
        drop(self.process);
    }
}

/// Makes the calling thread, but not its children, a real-time thread.
pub fn real_time(priority: i32) {
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: takes a pointer to a structure that lives as long as the call.
    let set = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameter)
    };
    assert_eq!(set, 0, "cannot become a real-time thread: {}", std::io::Error::last_os_error());
}

/// Waits until a thread that wants to run does not, for `ns`: it is queued then.
pub fn queued(pid: Pid, time: Duration) {
    let mut before = Schedstat::of(pid).unwrap();
    let mut since = std::time::Instant::now();
    until("a thread that is queued", Duration::from_secs(10), || {
        let now = Schedstat::of(pid)?;
        if now != before || load::state(pid, pid)? != 'R' {
            before = now;
            since = std::time::Instant::now();
        }
        Ok(since.elapsed() >= time)
    })
    .unwrap();
}
