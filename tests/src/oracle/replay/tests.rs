//! Hand-written runs with the cut worked out beside them. Times are nanoseconds; threads 1.. are in `/a`, 11.. in `/b`,
//! 21.. in `/c`, 31.. in `/daemon` (system), 41.. in the root.

use super::super::trace::{Event, Left, Membership, What};
use super::*;

const CPU0: Cpu = Cpu(0);
const CPU1: Cpu = Cpu(1);
const ROOT: CgroupId = CgroupId::ROOT;
const A: CgroupId = CgroupId(10);
const A_INNER: CgroupId = CgroupId(15);
const B: CgroupId = CgroupId(20);
const C: CgroupId = CgroupId(30);
const DAEMON: CgroupId = CgroupId(40);
const PODS: CgroupId = CgroupId(50);
const IN_POD: CgroupId = CgroupId(51);

struct Run(Trace);

fn run() -> Run {
    let places = [
        (ROOT, "/"),
        (A, "/a"),
        (A_INNER, "/a/x"),
        (B, "/b"),
        (C, "/c"),
        (DAEMON, "/daemon"),
        (PODS, "/p"),
        (IN_POD, "/p/d"),
    ];
    let firsts = [(1, A), (11, B), (21, C), (31, DAEMON), (41, ROOT), (51, IN_POD)];
    let threads = firsts.into_iter().flat_map(|(first, cgroup)| {
        (first..first + 4).map(move |tid| (Tid(tid), Membership { process: Tid(tid), cgroup }))
    });
    let cgroups = places.into_iter().map(|(id, path)| (id, path.to_owned())).collect();
    Run(Trace { events: Vec::new(), threads: threads.collect(), cgroups })
}

impl Run {
    fn then(mut self, at_ns: u64, what: What) -> Self {
        self.0.events.push(Event { at_ns, what });
        self
    }

    fn switch(self, at_ns: u64, cpu: Cpu, (prev, left, next): (u32, Left, u32)) -> Self {
        self.then(at_ns, What::Switch { cpu, prev: Tid(prev), left, next: Tid(next) })
    }

    /// `prev` is switched out still runnable.
    fn preempt(self, at_ns: u64, cpu: Cpu, prev: u32, next: u32) -> Self {
        self.switch(at_ns, cpu, (prev, Left::Runnable, next))
    }

    /// `prev` goes to sleep.
    fn sleep(self, at_ns: u64, cpu: Cpu, prev: u32, next: u32) -> Self {
        self.switch(at_ns, cpu, (prev, Left::Blocked, next))
    }

    fn wake(self, at_ns: u64, thread: u32, cpu: Cpu) -> Self {
        self.then(at_ns, What::Wakeup { thread: Tid(thread), cpu, first: false })
    }

    fn wake_new(self, at_ns: u64, thread: u32, cpu: Cpu) -> Self {
        self.then(at_ns, What::Wakeup { thread: Tid(thread), cpu, first: true })
    }

    fn migrate(self, at_ns: u64, thread: u32, to: Cpu) -> Self {
        self.then(at_ns, What::Migrate { thread: Tid(thread), to })
    }

    fn throttle(self, at_ns: u64, cgroup: CgroupId, cpu: Cpu) -> Self {
        self.then(at_ns, What::Throttle { cgroup, cpu })
    }

    fn unthrottle(self, at_ns: u64, cgroup: CgroupId, cpu: Cpu) -> Self {
        self.then(at_ns, What::Unthrottle { cgroup, cpu })
    }

    fn attach(self, at_ns: u64, thread: u32, cgroup: CgroupId) -> Self {
        self.then(at_ns, What::Attach { thread: Tid(thread), cgroup })
    }

    fn replay(&self) -> Replay {
        self.replay_in(Window::WHOLE)
    }

    fn replay_in(&self, window: Window) -> Replay {
        let assignment = Assignment::default()
            .container("/a")
            .container("/b")
            .container("/c")
            .system("/daemon")
            .container("/p/d");
        replay(&self.0, &assignment, window)
    }

    /// The waits of one row by cause, of which there are as many as lengths.
    #[track_caller]
    fn check(&self, row: &str, causes: CauseNs, lengths: &[u64]) -> Replay {
        let replay = self.replay();
        let found = replay.rows.get(row).cloned().unwrap_or_default();
        assert_eq!(found.causes, causes, "causes of {row}");
        assert_eq!(found.lengths_ns().collect::<Vec<_>>(), lengths, "lengths of {row}");
        assert_eq!(replay.set_aside.contradictions, 0);
        replay
    }
}

const NONE: CauseNs = CauseNs { quota: 0, self_: 0, neighbor: 0, system: 0, idle: 0 };

#[test]
fn a_wakeup_on_an_idle_cpu_waits_for_nobody() {
    // Woken at 100, switched in at 107: 7 idle.
    run().wake(100, 1, CPU0).sleep(107, CPU0, 0, 1).check("/a", CauseNs { idle: 7, ..NONE }, &[7]);
}

#[test]
fn a_preempted_thread_waits_again() {
    // 1 runs from 10; 11 of /b is woken at 20 and preempts it at 25: 5 for /b, all behind its neighbour /a. 1 waits from
    // 25 until 11 sleeps at 40: 15 behind /b.
    let run = run()
        .wake(10, 1, CPU0)
        .sleep(10, CPU0, 0, 1)
        .wake(20, 11, CPU0)
        .preempt(25, CPU0, 1, 11)
        .sleep(40, CPU0, 11, 1);
    let replay = run.check("/a", CauseNs { neighbor: 15, ..NONE }, &[0, 15]);
    assert_eq!(replay.rows["/a"].neighbors, BTreeMap::from([("/b".to_owned(), 15)]));
    run.check("/b", CauseNs { neighbor: 5, ..NONE }, &[5]);
    assert_eq!(replay.threads[&Tid(1)], [0, 15]);
}

#[test]
fn two_neighbours_and_own_threads_share_one_wait() {
    // 1 is woken at 100 behind 11 (/b), which runs until 110; then 21 (/c) until 140; then its own row's 2 until 145;
    // then nobody (the CPU idles for 2 although 1 is queued) until 147. 10 + 30 neighbour, 5 self, 2 idle.
    let run = run()
        .sleep(50, CPU0, 0, 11)
        .wake(100, 1, CPU0)
        .sleep(110, CPU0, 11, 21)
        .sleep(140, CPU0, 21, 2)
        .sleep(145, CPU0, 2, 0)
        .sleep(147, CPU0, 0, 1);
    let replay = run.check("/a", CauseNs { neighbor: 40, self_: 5, idle: 2, ..NONE }, &[47]);
    let neighbors = BTreeMap::from([("/b".to_owned(), 10), ("/c".to_owned(), 30)]);
    assert_eq!(replay.rows["/a"].neighbors, neighbors);
    // 11, 21 and 2 were switched in without a wakeup: they waited since before the trace.
    assert_eq!(replay.set_aside.begun_before, 3);
}

#[test]
fn what_is_outside_the_containers_is_system() {
    // 41 (root, say a kernel thread) until 20, 31 (/daemon) until 50; 1 is queued from 10: 10 + 30 system.
    run().sleep(5, CPU0, 0, 41).wake(10, 1, CPU0).sleep(20, CPU0, 41, 31).sleep(50, CPU0, 31, 1).check(
        "/a",
        CauseNs { system: 40, ..NONE },
        &[40],
    );
}

#[test]
fn a_system_row_is_a_row_and_sees_containers_as_neighbours() {
    let run = run().sleep(5, CPU0, 0, 1).wake(10, 31, CPU0).sleep(20, CPU0, 1, 31);
    run.check("/daemon", CauseNs { neighbor: 10, ..NONE }, &[10]);
}

#[test]
fn a_migration_moves_the_wait_to_the_other_cpu() {
    // CPU0 is held by /b, CPU1 by /c until it idles at 160. 1 is queued on CPU0 from 100 to 130 (30 behind /b), then on
    // CPU1 from 130 to 165: 30 behind /c, 5 idle.
    let run = run()
        .sleep(50, CPU0, 0, 11)
        .sleep(50, CPU1, 0, 21)
        .wake(100, 1, CPU0)
        .migrate(130, 1, CPU1)
        .sleep(160, CPU1, 21, 0)
        .sleep(165, CPU1, 0, 1);
    let replay = run.check("/a", CauseNs { neighbor: 60, idle: 5, ..NONE }, &[65]);
    let neighbors = BTreeMap::from([("/b".to_owned(), 30), ("/c".to_owned(), 30)]);
    assert_eq!(replay.rows["/a"].neighbors, neighbors);
}

#[test]
fn a_sleeper_that_is_given_another_cpu_does_not_wait() {
    // Asleep at 20, placed on CPU1 at 90 by the wakeup that follows at 91: the wait is 91 to 95.
    run()
        .wake(10, 1, CPU0)
        .sleep(10, CPU0, 0, 1)
        .sleep(20, CPU0, 1, 0)
        .migrate(90, 1, CPU1)
        .wake(91, 1, CPU1)
        .sleep(95, CPU1, 0, 1)
        .check("/a", CauseNs { idle: 4, ..NONE }, &[0, 4]);
}

#[test]
fn a_throttle_spans_the_ends_of_two_waits() {
    // /a is throttled on CPU0 from 200 to 300; /b runs there from 150 to 310, then 1 until 320, then 2.
    // 1: queued 180 to 310: 20 behind /b, 100 quota, 10 behind /b. 2: queued 250 to 320: 50 quota, 10 behind /b, 10 self.
    run()
        .sleep(150, CPU0, 0, 11)
        .wake(180, 1, CPU0)
        .throttle(200, A, CPU0)
        .wake(250, 2, CPU0)
        .unthrottle(300, A, CPU0)
        .sleep(310, CPU0, 11, 1)
        .sleep(320, CPU0, 1, 2)
        .check("/a", CauseNs { quota: 150, neighbor: 40, self_: 10, ..NONE }, &[130, 70]);
}

#[test]
fn one_wait_may_span_several_throttles_and_idle_cpus_count_as_quota_too() {
    // The CPU idles from 100 on but for the throttles: 110 to 150 and 160 to 190. Queued 105 to 195.
    run()
        .sleep(100, CPU0, 11, 0)
        .wake(105, 1, CPU0)
        .throttle(110, A, CPU0)
        .unthrottle(150, A, CPU0)
        .throttle(160, A, CPU0)
        .unthrottle(190, A, CPU0)
        .sleep(195, CPU0, 0, 1)
        .check("/a", CauseNs { quota: 70, idle: 20, ..NONE }, &[90]);
}

#[test]
fn nested_throttles_hold_until_the_last_is_gone_and_only_on_their_cpu() {
    // 51 of /p/d. Its own throttle on CPU0: 100 to 200; the pod's (/p) reaches it from 150 to 250. On CPU1 another one.
    // Queued on CPU0 from 90 to 260 while /b runs: 150 quota, 20 neighbour.
    run()
        .sleep(50, CPU0, 0, 11)
        .throttle(60, IN_POD, CPU1)
        .wake(90, 51, CPU0)
        .throttle(100, IN_POD, CPU0)
        .throttle(150, PODS, CPU0)
        .throttle(150, IN_POD, CPU0)
        .unthrottle(200, IN_POD, CPU0)
        .unthrottle(250, IN_POD, CPU0)
        .unthrottle(250, PODS, CPU0)
        .sleep(260, CPU0, 11, 51)
        .check("/p/d", CauseNs { quota: 150, neighbor: 20, ..NONE }, &[170]);
}

#[test]
fn an_ancestors_throttle_holds_for_a_cgroup_that_the_kernel_does_not_name() {
    // 1 moves to /a/x, which has no CPU controller of its own: it is charged to /a, and stopped with /a.
    run()
        .attach(10, 1, A_INNER)
        .sleep(50, CPU0, 0, 11)
        .wake(90, 1, CPU0)
        .throttle(100, A, CPU0)
        .unthrottle(120, A, CPU0)
        .sleep(130, CPU0, 11, 1)
        .check("/a", CauseNs { quota: 20, neighbor: 20, ..NONE }, &[40]);
}

#[test]
fn a_throttle_may_be_older_than_the_trace() {
    // Only its end is seen, at 100: it held since before. Queued 80 to 110 on an idle CPU.
    run().sleep(10, CPU0, 11, 0).wake(80, 1, CPU0).unthrottle(100, A, CPU0).sleep(110, CPU0, 0, 1).check(
        "/a",
        CauseNs { quota: 20, idle: 10, ..NONE },
        &[30],
    );
}

#[test]
fn a_thread_parked_by_a_throttle_waits_from_where_it_left() {
    // 6.18 and later: /a is throttled at 100, 1 still runs in the kernel and is switched out runnable at 120, unthrottled
    // at 200, switched in at 204. 80 quota, 4 idle.
    run()
        .sleep(50, CPU0, 0, 1)
        .throttle(100, A, CPU0)
        .preempt(120, CPU0, 1, 0)
        .unthrottle(200, A, CPU0)
        .sleep(204, CPU0, 0, 1)
        .check("/a", CauseNs { quota: 80, idle: 4, ..NONE }, &[84]);
}

#[test]
fn a_move_while_queued_charges_the_cgroup_that_it_is_switched_in_with() {
    // 1 is queued in /a from 100 behind 2 of /a, moves to /b at 120, and is switched in at 150: 50, all /b's, and for /b
    // the holder is a neighbour all along.
    let run = run().sleep(50, CPU0, 0, 2).wake(100, 1, CPU0).attach(120, 1, B).sleep(150, CPU0, 2, 1);
    let replay = run.check("/b", CauseNs { neighbor: 50, ..NONE }, &[50]);
    assert!(!replay.rows.contains_key("/a"));
}

#[test]
fn a_holder_that_moves_while_it_runs_is_cut_where_it_moves() {
    // 11 runs from 50 to 200 and moves from /b to /c at 120; 1 is queued from 100: 20 behind /b, 80 behind /c.
    let run = run().sleep(50, CPU0, 0, 11).wake(100, 1, CPU0).attach(120, 11, C).sleep(200, CPU0, 11, 1);
    let replay = run.check("/a", CauseNs { neighbor: 100, ..NONE }, &[100]);
    let neighbors = BTreeMap::from([("/b".to_owned(), 20), ("/c".to_owned(), 80)]);
    assert_eq!(replay.rows["/a"].neighbors, neighbors);
}

#[test]
fn new_threads_start_in_their_makers_cgroup_and_move_with_their_process() {
    let new = |maker, thread, same_process| What::NewThread {
        maker: Tid(maker),
        thread: Tid(thread),
        same_process,
    };
    // 100 is a process of 1's, 101 its thread: when 100 moves to /b both do. Each waits idle, 101 after the move.
    let run = run()
        .then(10, new(1, 100, false))
        .wake_new(11, 100, CPU0)
        .sleep(14, CPU0, 0, 100)
        .then(20, new(100, 101, true))
        .attach(30, 100, B)
        .wake_new(31, 101, CPU1)
        .sleep(36, CPU1, 0, 101);
    run.check("/a", CauseNs { idle: 3, ..NONE }, &[3]);
    run.check("/b", CauseNs { idle: 5, ..NONE }, &[5]);
}

#[test]
fn threads_that_join_move_alone_and_need_no_maker() {
    // 100 is made straight into /c and woken. 1 joins /b while it runs, 2 of the same process stays: 100 is queued from
    // 20 to 50 behind 1, of /a until 30, then of /b. 2 waits 4, idle.
    let join = |thread, cgroup| What::Join { thread: Tid(thread), cgroup };
    let run = run()
        .wake(5, 1, CPU0)
        .sleep(5, CPU0, 0, 1)
        .then(10, join(100, C))
        .wake_new(20, 100, CPU0)
        .then(30, join(1, B))
        .sleep(50, CPU0, 1, 100)
        .sleep(60, CPU0, 100, 0)
        .wake(70, 2, CPU0)
        .sleep(74, CPU0, 0, 2);
    let replay = run.check("/c", CauseNs { neighbor: 30, ..NONE }, &[30]);
    let neighbors = BTreeMap::from([("/a".to_owned(), 10), ("/b".to_owned(), 20)]);
    assert_eq!(replay.rows["/c"].neighbors, neighbors);
    assert_eq!(replay.set_aside.strangers, 0);
    run.check("/a", CauseNs { idle: 4, ..NONE }, &[0, 4]);
}

#[test]
fn a_thread_killed_while_queued_waits_once_and_leaves_its_id_clean() {
    // 1 is queued from 100; the kill wakes it again at 120, which begins no second wait. It is switched in at 130 to die,
    // and dies at 135. Its id comes back at 200 for a thread of /c.
    let run = run()
        .sleep(50, CPU0, 0, 11)
        .wake(100, 1, CPU0)
        .wake(120, 1, CPU0)
        .sleep(130, CPU0, 11, 1)
        .switch(135, CPU0, (1, Left::Dead, 0))
        .then(190, What::NewThread { maker: Tid(21), thread: Tid(1), same_process: false })
        .wake_new(200, 1, CPU0)
        .sleep(202, CPU0, 0, 1);
    run.check("/a", CauseNs { neighbor: 30, ..NONE }, &[30]);
    run.check("/c", CauseNs { idle: 2, ..NONE }, &[2]);
}

#[test]
fn a_thread_that_vanishes_while_queued_is_unfinished() {
    // 2 is queued at 100 and moved at 110; the trace ends at 150: 50 so far, set aside.
    let run = run().sleep(50, CPU0, 0, 11).wake(100, 2, CPU0).migrate(110, 2, CPU1).sleep(150, CPU0, 11, 0);
    let replay = run.check("/a", NONE, &[]);
    assert_eq!((replay.set_aside.unfinished, replay.set_aside.unfinished_ns), (1, 50));
}

#[test]
fn a_wakeup_of_a_running_thread_begins_nothing() {
    // 1 has said that it will sleep and is woken before it did: it never leaves the CPU.
    run().wake(10, 1, CPU0).sleep(12, CPU0, 0, 1).wake(20, 1, CPU0).sleep(90, CPU0, 1, 0).check(
        "/a",
        CauseNs { idle: 2, ..NONE },
        &[2],
    );
}

#[test]
fn a_sleeper_kept_runnable_by_a_signal_waits_from_where_it_left() {
    // Up to 6.13: reported asleep at 30, switched in at 50 without a wakeup: 20 behind /b.
    let run = run().wake(10, 1, CPU0).sleep(10, CPU0, 0, 1).sleep(30, CPU0, 1, 11).sleep(50, CPU0, 11, 1);
    let replay = run.check("/a", CauseNs { neighbor: 20, ..NONE }, &[0, 20]);
    assert_eq!(replay.set_aside.wakeups_unseen, 1);
}

#[test]
fn a_missing_switch_is_noticed_and_costs_only_the_turn_that_was_not_seen() {
    // 11 is switched in at 20, but it is 1 that leaves at 60: the switch between them is missing. The waits of both that
    // ended there are dropped; the next ones count.
    let replay = run()
        .wake(10, 1, CPU0)
        .wake(15, 11, CPU0)
        .sleep(20, CPU0, 0, 11)
        .sleep(60, CPU0, 1, 0)
        .wake(70, 11, CPU0)
        .sleep(73, CPU0, 0, 11)
        .replay();
    assert_eq!(replay.set_aside.contradictions, 1);
    assert_eq!(replay.rows["/b"].lengths_ns().collect::<Vec<_>>(), [5, 3]);
    assert!(!replay.rows.contains_key("/a"));
}

#[test]
fn waits_belong_to_the_window_in_which_they_end() {
    let run = run()
        .wake(10, 1, CPU0)
        .sleep(15, CPU0, 0, 1)
        .sleep(20, CPU0, 1, 0)
        .then(28, What::Mark("from".to_owned()))
        .wake(29, 1, CPU0)
        .sleep(31, CPU0, 0, 1)
        .sleep(35, CPU0, 1, 0)
        .then(40, What::Mark("to".to_owned()))
        .wake(41, 1, CPU0)
        .sleep(45, CPU0, 0, 1);
    let window = run.0.between("from", "to").unwrap();
    assert_eq!(window, Window { from_ns: 28, to_ns: 40 });
    assert_eq!(run.replay_in(window).rows["/a"].lengths_ns().collect::<Vec<_>>(), [2]);
    assert_eq!(run.0.between("to", "from"), None);
}

#[test]
fn nobody_known_on_a_cpu_sets_the_wait_aside() {
    // Queued on CPU1, where nobody is ever seen, then moved to CPU0.
    let replay =
        run().sleep(5, CPU0, 0, 11).wake(10, 1, CPU1).migrate(20, 1, CPU0).sleep(30, CPU0, 11, 1).replay();
    assert_eq!(replay.set_aside.holder_unseen, 1);
    assert!(!replay.rows.contains_key("/a"));
}

#[test]
fn paths_go_up_to_the_root() {
    let up = |path| self_and_ancestors(path).collect::<Vec<_>>();
    assert_eq!(up("/a/b"), ["/a/b", "/a", "/"]);
    assert_eq!(up("/"), ["/"]);
}
