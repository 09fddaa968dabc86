use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::cgroup::Format;
use crate::cgroup::layout::{Controller, Version};

/// A host with no cgroup but the root, which the reader has just looked at.
struct Host {
    root: tempfile::TempDir,
    cgroups: Cgroups,
    now_ns: u64,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.procs"), "").unwrap();
        let controller = Controller { root: root.path().to_owned(), format: Format::V2 };
        let (cpuacct, memory) = (controller.root.clone(), Some(controller.clone()));
        let layout = Layout { version: Version::V2, hierarchy_id: 0, cpu: controller, cpuacct, memory };
        Self { root, cgroups: Cgroups::find(layout).unwrap(), now_ns: 0 }
    }

    /// Makes a cgroup, of which no event tells.
    fn make(&self, path: &str) -> CgroupId {
        let directory = self.root.path().join(path);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("cgroup.procs"), "").unwrap();
        CgroupId(fs::metadata(directory).unwrap().ino())
    }

    /// What `memory.events` says of kills, in the cgroup and below it.
    fn write_kills(&self, path: &str, kills: u64) {
        let text = format!("low 0\nhigh 0\nmax 0\noom 0\noom_kill {kills}\n");
        fs::write(self.root.path().join(path).join("memory.events"), text).unwrap();
    }

    /// A look, as the reader takes it: `lost` is how many events have been so far. Reads the files of those who have a row,
    /// and returns the kills that are new.
    fn look(
        &mut self,
        events: impl IntoIterator<Item = Event>,
        lost: u64,
        rows: &[CgroupId],
    ) -> Vec<(Option<CgroupId>, u64)> {
        self.now_ns += 1;
        for event in events {
            self.cgroups.apply(event, self.now_ns);
        }
        self.cgroups.catch_up(lost, rows.iter().copied(), self.now_ns);
        for (_, resources) in self.cgroups.read_resources(rows.iter().copied(), self.now_ns) {
            assert_eq!(resources.memory_events.map_or(0, |events| events.oom_kill), 0, "they have one owner");
        }
        self.cgroups.take_oom_kills(|id| rows.contains(&id))
    }
}

fn made(id: CgroupId, path: &str) -> Event {
    Event::Made(id, Some(path.into()))
}

const CONTAINER: &str =
    "cri-containerd-0f3c5b8e9a7d6c4b0f3c5b8e9a7d6c4b0f3c5b8e9a7d6c4b0f3c5b8e9a7d6c4b.scope";

#[test]
fn a_kill_in_a_cgroup_of_which_nobody_has_told_that_it_was_made_is_counted_once() {
    let mut host = Host::new();
    let id = host.make("a.service");
    host.write_kills("a.service", 1);
    assert_eq!(host.look([Event::OomKill(id)], 1, &[id]), [(Some(id), 1)]);
    assert_eq!(host.look([], 1, &[id]), []);
    host.write_kills("a.service", 2);
    assert_eq!(host.look([Event::OomKill(id)], 1, &[id]), [(Some(id), 1)]);
}

#[test]
fn a_kill_within_a_container_of_which_nobody_has_told_that_it_was_made_is_the_containers_and_counted_once() {
    let mut host = Host::new();
    let container = host.make(CONTAINER);
    let path = format!("{CONTAINER}/init");
    let within = host.make(&path);
    host.write_kills(CONTAINER, 1);
    let events = [made(within, &path), Event::OomKill(within)];
    assert_eq!(host.look(events, 1, &[container]), [(Some(container), 1)]);
    assert_eq!(host.look([], 1, &[container]), []);
}

#[test]
fn who_is_found_before_the_event_of_its_making_comes_keeps_its_counts() {
    let mut host = Host::new();
    let id = host.make("a.service");
    host.write_kills("a.service", 1);
    assert_eq!(host.look([], 1, &[id]), [(Some(id), 1)], "found by the look at the whole tree");
    assert_eq!(host.look([made(id, "a.service"), Event::OomKill(id)], 1, &[id]), []);
}

#[test]
fn a_kill_of_who_has_no_row_is_counted_at_once_and_not_again_when_it_has_one() {
    let mut host = Host::new();
    let id = host.make("a.service");
    host.write_kills("a.service", 1);
    assert_eq!(host.look([made(id, "a.service"), Event::OomKill(id)], 0, &[]), [(None, 1)], "it lives");
    assert_eq!(host.look([], 0, &[id]), []);
    host.write_kills("a.service", 2);
    assert_eq!(host.look([], 0, &[id]), [(Some(id), 1)]);
}

#[test]
fn a_kill_that_is_told_after_the_last_counts_is_still_its_own_as_long_as_its_name_is_known() {
    let mut host = Host::new();
    let id = host.make("a.service");
    host.look([made(id, "a.service")], 0, &[id]);
    fs::remove_dir_all(host.root.path().join("a.service")).unwrap();
    host.look([Event::Removed(id)], 0, &[id]);
    host.cgroups.counted_out(id);
    assert_eq!(host.look([Event::OomKill(id)], 0, &[]), [(Some(id), 1)]);
    assert_eq!(host.look([], 0, &[]), []);
    host.cgroups.forget(host.now_ns + KNOWN_FOR_NS, |_| false);
    assert_eq!(host.look([Event::OomKill(id)], 0, &[]), [(None, 1)], "of nobody who is known");
}

#[test]
fn a_kill_waits_for_a_look_at_the_tree() {
    let mut host = Host::new();
    let root = host.root.path().to_owned();
    let away = root.with_extension("away");
    fs::rename(&root, &away).unwrap();
    assert_eq!(host.look([Event::OomKill(CgroupId(u64::MAX))], 0, &[]), []);
    fs::rename(&away, &root).unwrap();
    assert_eq!(host.look([], 0, &[]), [(None, 1)]);
}
