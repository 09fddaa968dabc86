//! Recordings are exact, whatever is recorded, and honest about every kind of damage.

use std::io::{self, Write};
use std::ops::Range;

use proptest::prelude::*;

use super::frame::{HEAD_BYTES, Head, Kind};
use super::*;
use crate::abi::TOLD;
use crate::buckets::{BUCKETS, OCTAVES};
use crate::histogram::{CoarseHistogram, LatencyHistogram};
use crate::identity::{Container, Identity, Names, Owner, Pod, QosClass, Runtime};
use crate::resources::{CpuLimit, LimitOf, Limits, Memory, MemoryEvents, Pressure};
use crate::snapshot::{
    Causes, CgroupCounters, CgroupId, Counters, Cycles, Durations, LOSSES, Losses, Presence, Snapshot,
    Throttling, Unmet,
};
use crate::throttle::DURATIONS;

/// Numbers of any size; 0 and the highest more often than by chance.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => Just(0),
        1 => Just(u64::MAX),
        6 => (0u32..64, any::<u64>()).prop_map(|(bits, number)| number >> bits),
    ]
}

fn numbers<const N: usize>() -> impl Strategy<Value = [u64; N]> {
    prop::collection::vec((0..N, number()), 0..6).prop_map(|changes| {
        let mut numbers = [0; N];
        for (at, number) in changes {
            numbers[at] = number;
        }
        numbers
    })
}

fn id() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 1u64..12, 1 => Just(0), 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1)]
}

pub(crate) fn counters() -> impl Strategy<Value = Counters> {
    let waits = (numbers::<BUCKETS>(), number(), numbers::<8>(), prop::array::uniform5(numbers::<OCTAVES>()));
    let durations = prop::option::of(numbers::<DURATIONS>());
    let neighbors = prop::collection::btree_map(id().prop_map(CgroupId), number(), 0..4);
    let known = (
        prop::option::of(numbers::<5>()),
        prop::option::of(numbers::<4>()),
        prop::option::of(numbers::<2>()),
        prop::option::of(numbers::<4>()),
    );
    (waits, neighbors, number(), numbers::<4>(), durations, known).prop_map(
        |(
            (latency, sum_ns, causes, coarse),
            neighbors,
            usage_ns,
            throttling,
            durations,
            (events, pressure, unmet, cycles),
        )| {
            let durations = durations.map_or(Durations::HooksUnavailable, Durations::Counted);
            Counters {
                latency: LatencyHistogram::new(latency, sum_ns),
                causes: Causes::from_parts(causes),
                unmet: unmet.map(Unmet::from_parts),
                cycles: cycles.map(Cycles::from_parts),
                coarse: coarse.map(|counts| CoarseHistogram { counts }),
                neighbors,
                usage_ns,
                throttling: Throttling::from_parts(throttling, durations),
                memory_events: events.map(MemoryEvents::from_parts),
                pressure: pressure.map(Pressure::from_parts),
            }
        },
    )
}

pub(crate) fn container() -> impl Strategy<Value = Container> {
    let runtime = prop::sample::select(vec![
        None,
        Some(Runtime::Containerd),
        Some(Runtime::CriO),
        Some(Runtime::Docker),
        Some(Runtime::Podman),
    ]);
    let qos = prop::sample::select(vec![
        None,
        Some(QosClass::Guaranteed),
        Some(QosClass::Burstable),
        Some(QosClass::BestEffort),
    ]);
    let names = ("[a-z]{0,4}", ".{0,4}", prop::option::of("[a-z]{0,4}"))
        .prop_map(|(namespace, pod, container)| Names { namespace, pod, container });
    let pod = ("[0-9a-f]{32}", qos).prop_map(|(uid, qos)| Pod { uid: uid.try_into().unwrap(), qos });
    ("[0-9a-f]{64}", runtime, prop::option::of(pod), prop::option::of(names))
        .prop_map(|(id, runtime, pod, names)| Container { id: id.try_into().unwrap(), runtime, pod, names })
}

fn identity() -> impl Strategy<Value = Identity> {
    let owner = prop_oneof![
        Just(Owner::Outside),
        ".{0,5}".prop_map(|name| Owner::Unit { name }),
        container().prop_map(|container| Owner::Container(Box::new(container))),
    ];
    (".{0,9}", owner).prop_map(|(path, owner)| Identity { path, owner })
}

pub(crate) fn limits() -> impl Strategy<Value = Limits> {
    let of = prop::sample::select(vec![LimitOf::Own, LimitOf::Ancestor]);
    let cpu = (number(), 1..=u64::MAX, of).prop_map(|(quota_us, period_us, of)| CpuLimit {
        quota_us,
        period_us,
        of,
    });
    let known = || prop::option::of(number());
    (prop::option::of(cpu), known(), known(), known()).prop_map(
        |(cpu, cpu_weight, memory_max_bytes, memory_high_bytes)| Limits {
            cpu,
            cpu_weight,
            memory_max_bytes,
            memory_high_bytes,
        },
    )
}

pub(crate) fn memory() -> impl Strategy<Value = Memory> {
    (number(), number(), prop::option::of(number()), number()).prop_map(
        |(current_bytes, working_set_bytes, peak_bytes, read_ns)| Memory {
            current_bytes,
            working_set_bytes,
            peak_bytes,
            read_ns,
        },
    )
}

/// One of the things that happen between two snapshots. Nothing holds them to what could: what a reader or a test
/// hands over is recorded as it is.
#[derive(Clone, Debug)]
enum Change {
    Counters(u64, Box<Counters>),
    Neighbor(u64, u64),
    Identity(u64, Identity),
    Limits(u64, Limits),
    Memory(u64, Option<Memory>),
    Removed(u64),
    LeftOut(u64),
    Since(u64, u64),
    Restarted { epoch: u64, since_ns: u64 },
    Hooks(bool),
    Other(Box<Counters>),
    Losses([u64; LOSSES]),
    Switches(u64),
}

fn change() -> impl Strategy<Value = Change> {
    let boxed = || counters().prop_map(Box::new);
    prop_oneof![
        6 => (id(), boxed()).prop_map(|(id, counters)| Change::Counters(id, counters)),
        3 => (id(), id()).prop_map(|(id, neighbor)| Change::Neighbor(id, neighbor)),
        2 => (id(), identity()).prop_map(|(id, identity)| Change::Identity(id, identity)),
        2 => (id(), limits()).prop_map(|(id, limits)| Change::Limits(id, limits)),
        2 => (id(), prop::option::of(memory())).prop_map(|(id, memory)| Change::Memory(id, memory)),
        1 => id().prop_map(Change::Removed),
        2 => id().prop_map(Change::LeftOut),
        1 => (id(), number()).prop_map(|(id, since_ns)| Change::Since(id, since_ns)),
        1 => (number(), number()).prop_map(|(epoch, since_ns)| Change::Restarted { epoch, since_ns }),
        1 => any::<bool>().prop_map(Change::Hooks),
        1 => boxed().prop_map(Change::Other),
        1 => numbers().prop_map(Change::Losses),
        1 => number().prop_map(Change::Switches),
    ]
}

impl Change {
    fn make(self, snapshot: &mut Snapshot) {
        fn of(snapshot: &mut Snapshot, id: u64) -> &mut CgroupCounters {
            snapshot.cgroups.entry(CgroupId(id)).or_default()
        }
        match self {
            Self::Counters(id, counters) => of(snapshot, id).counters = *counters,
            Self::Neighbor(id, neighbor) => {
                of(snapshot, id).counters.add_neighbor(CgroupId(neighbor), neighbor)
            }
            Self::Identity(id, identity) => of(snapshot, id).identity = identity,
            Self::Limits(id, limits) => of(snapshot, id).limits = limits,
            Self::Memory(id, memory) => of(snapshot, id).memory = memory,
            Self::Removed(id) => of(snapshot, id).presence = Presence::Removed,
            Self::LeftOut(id) => drop(snapshot.cgroups.remove(&CgroupId(id))),
            Self::Since(id, since_ns) => of(snapshot, id).since_ns = since_ns,
            Self::Restarted { epoch, since_ns } => {
                *snapshot = Snapshot { epoch, since_ns, ..Snapshot::default() };
            }
            Self::Hooks(hooked) => snapshot.throttle_hooks = hooked,
            Self::Other(counters) => snapshot.other = *counters,
            Self::Losses(losses) => snapshot.losses = Losses::from_parts(losses),
            Self::Switches(switches) => snapshot.switches = switches,
        }
    }
}

fn snapshots() -> impl Strategy<Value = Vec<Snapshot>> {
    let step = (number(), prop::collection::vec(change(), 0..8));
    prop::collection::vec(step, 0..10).prop_map(|steps| {
        let mut snapshot = Snapshot::default();
        let mut snapshots = Vec::new();
        for (at_ns, changes) in steps {
            snapshot.at_ns = at_ns;
            changes.into_iter().for_each(|change| change.make(&mut snapshot));
            snapshots.push(snapshot.clone());
        }
        snapshots
    })
}

fn header() -> Header {
    Header {
        started_unix_ns: 1_790_000_000_000_000_000,
        started_ns: 5_000_000_000,
        interval_ns: 15_000_000_000,
        kernel: "6.12.30-cloud-amd64".to_owned(),
        cpus: 2,
        node: Some("node-1".to_owned()),
        sampler: "0.1.0".to_owned(),
    }
}

/// Every so many snapshots one is whole in the recordings of these tests.
const WHOLE: usize = 4;

/// A recording, and where in it each snapshot's frame lies.
fn record(snapshots: &[Snapshot]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut bytes = Vec::new();
    let mut writer = Writer::create(&mut bytes, header()).unwrap();
    writer.key_every = WHOLE as u64;
    let lengths: Vec<_> = snapshots.iter().map(|snapshot| writer.append(snapshot).unwrap()).collect();
    let mut end = bytes.len() - lengths.iter().sum::<usize>();
    let range = |length: usize| {
        end += length;
        end - length..end
    };
    let frames = lengths.into_iter().map(range).collect();
    (bytes, frames)
}

fn read(bytes: &[u8]) -> Vec<Result<Snapshot, RecordingError>> {
    Reader::open(bytes).unwrap().collect()
}

/// A node with three containers that go on waiting.
fn quiet(count: u64) -> Vec<Snapshot> {
    let mut snapshot = Snapshot { epoch: 7, throttle_hooks: true, ..Snapshot::default() };
    (1..=count)
        .map(|number| {
            snapshot.at_ns = number * 1_000_000_000;
            for id in 1..=3 {
                let counters = &mut snapshot.cgroups.entry(CgroupId(id)).or_default().counters;
                counters.latency.record(number << id);
                counters.causes.idle_ns += number << id;
            }
            snapshot.clone()
        })
        .collect()
}

fn assert_all(read: Vec<Result<Snapshot, RecordingError>>, written: &[Snapshot]) {
    let read: Vec<_> = read.into_iter().map(Result::unwrap).collect();
    assert_eq!(read, written);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_read_is_what_was_written(snapshots in snapshots()) {
        let (bytes, _) = record(&snapshots);
        let reader = Reader::open(&*bytes).unwrap();
        prop_assert_eq!(reader.header(), &header());
        let read: Vec<_> = reader.map(Result::unwrap).collect();
        prop_assert_eq!(read, snapshots);
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (recording, frames) = record(&quiet(3));
        let start = frames[0].start;
        for bytes in [bytes.clone(), [&recording[..start], &bytes].concat(), [&recording, &*bytes].concat()] {
            if let Ok(reader) = Reader::open(&*bytes) {
                prop_assert!(reader.count() <= 5);
            }
        }
    }
}

#[test]
fn a_recording_that_is_cut_gives_every_whole_snapshot_and_says_so() {
    let snapshots = quiet(WHOLE as u64 + 3);
    let (bytes, frames) = record(&snapshots);
    for length in 0..bytes.len() {
        let cut = &bytes[..length];
        let whole = frames.iter().take_while(|frame| frame.end <= length).count();
        let torn_at = frames.get(whole).map_or(0, |frame| frame.start);
        let mut reader = match Reader::open(cut) {
            Ok(reader) => reader,
            Err(RecordingError::Cut { .. }) if length > 0 && length < frames[0].start => continue,
            Err(RecordingError::NotARecording) if length == 0 => continue,
            Err(other) => panic!("{length}: {other}"),
        };
        assert!(length >= frames[0].start, "{length}");
        for snapshot in &snapshots[..whole] {
            assert_eq!(&reader.next().unwrap().unwrap(), snapshot, "{length}");
        }
        match reader.next() {
            None => assert_eq!(length, torn_at),
            Some(Err(RecordingError::Cut { at_byte, bytes })) => {
                assert_eq!((at_byte, bytes), (torn_at as u64, (length - torn_at) as u64));
                assert_ne!(bytes, 0);
            }
            other => panic!("{length}: {other:?}"),
        }
        assert!(reader.next().is_none(), "{length}");
    }
}

#[test]
fn every_flipped_bit_is_found_and_nothing_is_invented() {
    let snapshots = quiet(WHOLE as u64 + 3);
    let (bytes, frames) = record(&snapshots);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let reader = match Reader::open(&*flipped) {
            Ok(reader) => reader,
            Err(_) => {
                assert!(at < frames[0].start, "{at}");
                continue;
            }
        };
        if at == MAGIC.len() {
            // Version 3 with a bit less is version 2, which is read in the same way.
            assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), snapshots);
            continue;
        }
        let hit = frames.iter().position(|frame| frame.contains(&at)).unwrap();
        // All before it, one error, and everything from the next key frame on.
        let next_key = if hit < WHOLE { WHOLE } else { snapshots.len() };
        let items: Vec<_> = reader.collect();
        let errors: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
        let lost = frames[hit].start..frames.get(next_key).map_or(bytes.len(), |frame| frame.start);
        match errors[..] {
            [RecordingError::Damaged { at_byte, bytes, snapshots: told }] => {
                assert_eq!((*at_byte, *bytes), (lost.start as u64, lost.len() as u64), "{at}");
                let known = next_key != snapshots.len();
                assert_eq!(*told, known.then_some((next_key - hit) as u64), "{at}");
            }
            ref other => panic!("{at}: {other:?}"),
        }
        let read: Vec<_> = items.into_iter().filter_map(Result::ok).collect();
        assert_eq!(read, [&snapshots[..hit], &snapshots[next_key..]].concat(), "{at}");
    }
}

#[test]
fn a_frame_that_is_missing_doubled_or_strange_is_told() {
    let snapshots = quiet(4);
    let (bytes, frames) = record(&snapshots);
    let frame = |number: usize| &bytes[frames[number].clone()];
    let head = &bytes[..frames[0].start];
    let told = |parts: &[&[u8]]| -> Vec<String> {
        let tell = |item: Result<Snapshot, _>| match item {
            Ok(snapshot) => format!("{}", snapshot.at_ns / 1_000_000_000),
            Err(RecordingError::Damaged { bytes, snapshots, .. }) => format!("lost {bytes} {snapshots:?}"),
            Err(other) => panic!("{other}"),
        };
        read(&[head, &parts.concat()].concat()).into_iter().map(tell).collect()
    };
    let length = |number: usize| frames[number].len();
    let lost = |bytes: usize, snapshots: Option<u64>| format!("lost {bytes} {snapshots:?}");
    assert_eq!(told(&[frame(0), frame(2), frame(3)]), ["1", &lost(length(2) + length(3), None)]);
    assert_eq!(told(&[frame(0), frame(1), frame(1), frame(2)]), ["1", "2", &lost(length(1), Some(0)), "3"]);
    assert_eq!(told(&[b"?", frame(0), b"\xF5", frame(1)]), [&lost(1, Some(0)), "1", &lost(1, Some(0)), "2"]);
    assert_eq!(told(&[frame(0), b"more"]), ["1", &lost(4, None)]);
    // What follows another snapshot is no part of this recording, though its number fits.
    let mut others = snapshots.clone();
    others[0].switches = 1;
    let (other, at) = record(&others);
    assert_eq!(told(&[frame(0), &other[at[1].clone()]]), ["1", &lost(at[1].len(), None)]);
}

#[test]
fn a_snapshot_that_could_not_be_written_costs_no_other() {
    /// Has room for so many bytes, once.
    struct Full<'a> {
        to: &'a mut Vec<u8>,
        room: Option<usize>,
    }
    impl Write for Full<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match &mut self.room {
                Some(0) => {
                    self.room = None;
                    Err(io::ErrorKind::StorageFull.into())
                }
                Some(room) => {
                    let count = bytes.len().min(*room);
                    *room -= count;
                    self.to.write(&bytes[..count])
                }
                None => self.to.write(bytes),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let snapshots = quiet(5);
    let (_, frames) = record(&snapshots);
    let mut bytes = Vec::new();
    let to = Full { to: &mut bytes, room: Some(frames[2].start + 10) };
    let mut writer = Writer::create(to, header()).unwrap();
    for (number, snapshot) in snapshots.iter().enumerate() {
        assert_eq!(writer.append(snapshot).is_err(), number == 2);
    }
    let mut items = read(&bytes);
    assert!(matches!(items.remove(2), Err(RecordingError::Damaged { bytes: 10, snapshots: Some(0), .. })));
    assert_all(items, &[&snapshots[..2], &snapshots[3..]].concat());
}

#[test]
fn a_snapshot_with_too_many_cgroups_is_refused_and_the_next_one_is_not() {
    let mut large = Snapshot::default();
    large.cgroups.extend((0..=CGROUPS as u64).map(|id| (CgroupId(id), CgroupCounters::default())));
    let mut bytes = Vec::new();
    let mut writer = Writer::create(&mut bytes, header()).unwrap();
    let error = writer.append(&large).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { cgroups, .. } if cgroups == CGROUPS + 1), "{error}");
    large.cgroups.pop_last();
    writer.append(&large).unwrap();
    assert_all(read(&bytes), &[large]);
}

#[test]
fn differences_that_grow_too_large_together_are_cut_short_by_a_key_frame() {
    // Paths that cannot be compressed to nothing and are new each time.
    let snapshots: Vec<_> = (0u8..5)
        .map(|number| {
            let path = char::from(b'a' + number).to_string().repeat(RUN_BYTES / 4);
            let cgroup =
                CgroupCounters { identity: Identity { path, owner: Owner::Outside }, ..Default::default() };
            Snapshot { cgroups: [(CgroupId(1), cgroup)].into(), ..Snapshot::default() }
        })
        .collect();
    assert_all(read(&record(&snapshots).0), &snapshots);
}

#[test]
fn a_frame_that_says_what_cannot_be_is_refused_and_costs_up_to_the_next_key_frame() {
    let wrong = |node: wire::Node, cgroups: &[wire::Cgroup]| {
        use prost::Message as _;
        let mut payload = node.encode_length_delimited_to_vec();
        for cgroup in cgroups {
            payload.extend(cgroup.encode_length_delimited_to_vec());
        }
        let snapshots = quiet(2);
        let (mut bytes, frames) = record(&snapshots[..1]);
        let base = crc32fast::hash(&bytes[frames[0].start + HEAD_BYTES..]);
        let payload = pack::pack(&payload).unwrap();
        bytes.extend(Head::new(Kind::Difference, 2, base, &payload).before(&payload));
        let whole = pack::pack(&difference::between(&Snapshot::default(), &snapshots[1])).unwrap();
        bytes.extend(Head::new(Kind::Key, 3, 0, &whole).before(&whole));
        let [Ok(one), Err(RecordingError::Invalid { what, .. }), Ok(two)] = &read(&bytes)[..] else {
            panic!("{:?}", read(&bytes));
        };
        assert_eq!((one, two), (&snapshots[0], &snapshots[1]));
        what.to_string()
    };
    let node = wire::Node { changed: 1, ..wire::Node::default() };
    let cgroup = wire::Cgroup { id: 9, ..wire::Cgroup::default() };
    let identity = |owner| Some(wire::Identity { path: String::new(), owner: Some(owner) });
    let container = wire::Container { id: "0".repeat(64), ..wire::Container::default() };
    let of =
        |container| wire::Cgroup { identity: identity(wire::Owner::Container(container)), ..cgroup.clone() };
    let counters = |counters| wire::Cgroup { counters: Some(counters), ..cgroup.clone() };
    let cpu = Some(wire::CpuLimit { quota_us: 1, period_us: 0, of_ancestor: false });
    for (cgroups, what) in [
        (vec![], "not the protobuf that it should be"),
        (vec![cgroup.clone(), cgroup.clone()], "bytes after the last cgroup"),
        (vec![of(wire::Container { id: "web".into(), ..container.clone() })], "a container id that is none"),
        (vec![of(wire::Container { runtime: 5, ..container.clone() })], "a runtime that is not known"),
        (vec![of(wire::Container { qos: 4, ..container.clone() })], "a QoS class that is not known"),
        (
            vec![of(wire::Container { pod_uid: Some("1".into()), ..container.clone() })],
            "a pod UID that is none",
        ),
        (
            vec![wire::Cgroup { limits: Some(wire::Limits { cpu, ..Default::default() }), ..cgroup.clone() }],
            "a CPU limit with a period of 0",
        ),
        (
            vec![counters(wire::Counters { latency: vec![BUCKETS as u64, 1], ..Default::default() })],
            "a count beyond the last",
        ),
        (
            vec![counters(wire::Counters { coarse: vec![(OCTAVES * TOLD) as u64, 1], ..Default::default() })],
            "a count beyond the last",
        ),
        (vec![counters(wire::Counters { neighbors: vec![1], ..Default::default() })], "half a neighbour"),
        (
            vec![counters(wire::Counters { forgotten: vec![1], ..Default::default() })],
            "a neighbour forgotten that was not there",
        ),
    ] {
        assert_eq!(wrong(node.clone(), &cgroups), what);
    }
    let left_out = wire::Node { left_out: vec![100], ..wire::Node::default() };
    assert_eq!(wrong(left_out, &[]), "a cgroup left out that was not there");
    let losses = wire::Node { losses: vec![LOSSES as u64, 1], ..wire::Node::default() };
    assert_eq!(wrong(losses, &[]), "a count beyond the last");
}

#[test]
fn a_length_that_lies_takes_no_memory_and_ends_the_recording() {
    let (mut bytes, _) = record(&[]);
    let at = bytes.len();
    let head = Head { length: PAYLOAD_BYTES, ..Head::new(Kind::Key, 1, 0, &[]) };
    bytes.extend(head.before(&[]));
    assert!(matches!(read(&bytes)[..], [Err(RecordingError::Cut { bytes: 28, .. })]));
    // One byte more than is allowed is no frame at all.
    bytes.truncate(at);
    bytes.extend(Head { length: PAYLOAD_BYTES + 1, ..head }.before(&[]));
    assert!(matches!(read(&bytes)[..], [Err(RecordingError::Damaged { bytes: 28, snapshots: None, .. })]));
}

#[test]
fn other_versions_and_other_files_are_refused_in_a_sentence() {
    let (mut bytes, _) = record(&quiet(1));
    for version in [0, VERSION + 1] {
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let error = Reader::open(&*bytes).err().unwrap();
        assert!(matches!(error, RecordingError::Version { version: told } if told == version));
    }
    let error = Reader::open(&*bytes).err().unwrap().to_string();
    assert_eq!(
        error,
        "the recording has format version 4; this program reads 1 to 3: \
         read it with the sampler that recorded it, or a newer one"
    );
    for other in [&b"\x7fELF"[..], b"LOADLIES 1234", b"{\"epoch\": 1, \"since_ns\": 2}"] {
        assert!(matches!(Reader::open(other), Err(RecordingError::NotARecording)));
    }
    assert!(matches!(Reader::open(&b"LOADLINE\x01"[..]), Err(RecordingError::Cut { at_byte: 0, bytes: 9 })));
}
