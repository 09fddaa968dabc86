//! Any `/proc/self/mountinfo`, and after a NUL any `/proc/self/cgroup`: what is found is mounted, written again it is found
//! again, and whoever asks for just that gets it.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use loadline_fuzz::cgroup::Format;
use loadline_fuzz::cgroup::layout::{Choice, Layout, Version};
use loadline_fuzz::cgroup::mounts::{Kind, Mount, parse};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (mountinfo, own_cgroups) = text.split_once('\0').unwrap_or((&text, "0::/\n"));
    mounts(mountinfo);
    layout(mountinfo, own_cgroups);
});

fn mounts(mountinfo: &str) {
    let found = parse(mountinfo);
    assert!(found.len() <= mountinfo.lines().count());
    // Two names for one place, which the kernel does not write: one of them would hide the other.
    let mut places: Vec<_> = found.iter().map(|mount| &mount.point).collect();
    places.sort();
    places.dedup();
    if places.len() < found.len() {
        return;
    }
    let by_place = |mut mounts: Vec<Mount>| {
        mounts.sort_by(|one, other| one.point.cmp(&other.point));
        mounts
    };
    let again = parse(&found.iter().map(line).collect::<String>());
    assert_eq!(by_place(again), by_place(found));
}

/// As the kernel writes it; with a word more at the end, as what is there may end with a carriage return.
fn line(mount: &Mount) -> String {
    let escaped = |c| match c {
        ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", u32::from(c)),
        c => c.to_string(),
    };
    let point: String = mount.point.to_string_lossy().chars().map(escaped).collect();
    let (fs, options) = match &mount.kind {
        Kind::Unified => ("cgroup2", "rw".to_owned()),
        Kind::V1(controllers) => ("cgroup", controllers.join(",")),
    };
    format!("24 30 0:22 / {point} rw shared:9 - {fs} none {options} .\n")
}

fn layout(mountinfo: &str, own_cgroups: &str) {
    let of = |choice: &Choice| Layout::of(mountinfo, own_cgroups, choice);
    let layout = match of(&Choice::default()) {
        Ok(layout) => layout,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let mounts = parse(mountinfo);
    let mounted = |root: &Path| mounts.iter().any(|mount| mount.point == root);
    assert!(mounted(&layout.cpu.root) && mounted(&layout.cpuacct));
    assert!(layout.memory.as_ref().is_none_or(|memory| mounted(&memory.root)));
    let formats = || [&layout.cpu].into_iter().chain(&layout.memory).map(|controller| controller.format);
    match layout.version {
        Version::V1 => assert!(formats().all(|format| format == Format::V1)),
        Version::Hybrid => assert!(formats().any(|format| format == Format::V1)),
        Version::V2 => assert!(formats().all(|format| format == Format::V2)),
    }
    if layout.cpu.format == Format::V2 {
        assert_eq!((layout.hierarchy_id, &layout.cpuacct), (0, &layout.cpu.root));
    }
    let whole = layout.version == Version::V2 && layout.memory.is_some();
    assert_eq!(layout.lost().is_empty(), whole);
    let asked = Choice { version: Some(layout.version), ..Choice::default() };
    assert_eq!(of(&asked).ok(), Some(layout));
}
