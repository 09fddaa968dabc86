//! The events' own descriptions (`events/*/*/format`) → decoder of records into [`What`].

use std::collections::BTreeMap;

use super::trace::{CgroupId, Cpu, Left, Tid, What};

/// Why a description or a record could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The description has no number or lacks a field that is needed.
    #[error("the format of {event} does not describe {part}")]
    Missing {
        /// The event.
        event: &'static str,
        /// The field, or `ID`.
        part: String,
    },
    /// The record ends before the field does, or the field's size is not a number's.
    #[error("a record of {length} bytes has no field at {offset}")]
    Record {
        /// Length of the record in bytes.
        length: usize,
        /// Where the field should be.
        offset: usize,
    },
    /// An event that was not asked for.
    #[error("a record of the unknown format {id}")]
    UnknownId {
        /// The format's number.
        id: u16,
    },
}

/// A record, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A step of the run.
    What(What),
    /// A step, and with it a cgroup's path.
    Attach(What, CgroupId, String),
    /// A cgroup was made.
    NewCgroup(CgroupId, String),
    /// Something that is not about threads or the v2 hierarchy.
    Nothing,
}

/// The events that the oracle listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `sched_switch`
    Switch,
    /// `sched_wakeup`
    Wakeup,
    /// `sched_wakeup_new`
    WakeupNew,
    /// `sched_migrate_task`
    Migrate,
    /// `task_newtask`
    NewThread,
    /// `cgroup_attach_task`
    Attach,
    /// `cgroup_mkdir`
    NewCgroup,
    /// The note of an observer.
    Mark,
    /// The probe on `css_set_move_task`
    Join,
    /// The probe on `tg_throttle_down`
    Throttle,
    /// The probe on `tg_unthrottle_up`
    Unthrottle,
}

impl Kind {
    /// What is always listened to.
    pub const ALWAYS: [Self; 5] =
        [Self::Switch, Self::Wakeup, Self::WakeupNew, Self::Migrate, Self::NewCgroup];

    /// Probes of ours.
    pub const PROBES: [Self; 3] = [Self::Join, Self::Throttle, Self::Unthrottle];

    /// What tells of threads' cgroups where there are no probes.
    pub const WITHOUT_PROBES: [Self; 2] = [Self::NewThread, Self::Attach];

    /// The event's directory below `events`.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Switch => "sched/sched_switch",
            Self::Wakeup => "sched/sched_wakeup",
            Self::WakeupNew => "sched/sched_wakeup_new",
            Self::Migrate => "sched/sched_migrate_task",
            Self::NewThread => "task/task_newtask",
            Self::Attach => "cgroup/cgroup_attach_task",
            Self::NewCgroup => "cgroup/cgroup_mkdir",
            Self::Mark => "ftrace/print",
            Self::Join => "loadline/join",
            Self::Throttle => "loadline/throttle",
            Self::Unthrottle => "loadline/unthrottle",
        }
    }

    /// The fields that [`Decoder::decode`] takes from it, in the order in which it takes them.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Switch => &["prev_pid", "prev_state", "next_pid"],
            Self::Wakeup | Self::WakeupNew => &["pid", "target_cpu"],
            Self::Migrate => &["pid", "dest_cpu"],
            Self::NewThread => &["common_pid", "pid", "clone_flags"],
            Self::Attach => &["pid", "dst_root", "dst_id", "dst_path"],
            Self::NewCgroup => &["root", "id", "path"],
            Self::Mark => &["buf"],
            Self::Join => &["thread", "cgroup", "to"],
            Self::Throttle | Self::Unthrottle => &["cgroup", "cpu"],
        }
    }
}

/// Where a field is in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    offset: usize,
    size: usize,
}

/// Bits of `sched_switch`'s `prev_state`: the states that the kernel reports, and behind them "preempted" (`R+`).
const STATE_DEAD: i64 = 0x10 | 0x20; // EXIT_DEAD, EXIT_ZOMBIE
const STATE_PREEMPTED: i64 = 0x100; // TASK_REPORT_MAX
const CLONE_THREAD: i64 = 0x1_0000;
/// The hierarchy number of cgroup v2.
const V2_ROOT: i64 = 0;

/// Reads records by the formats of the running kernel.
#[derive(Debug, Default)]
pub struct Decoder {
    shapes: BTreeMap<u16, (Kind, Vec<Field>)>,
}

impl Decoder {
    /// Learns an event from its `format` file.
    ///
    /// # Errors
    /// When the file lacks its number or a field that is needed.
    pub fn learn(&mut self, kind: Kind, format: &str) -> Result<(), FormatError> {
        let missing = |part: &str| FormatError::Missing { event: kind.path(), part: part.to_owned() };
        let id = format.lines().find_map(|line| line.strip_prefix("ID:")?.trim().parse().ok());
        let fields = kind.fields().iter().map(|&name| field(format, name).ok_or_else(|| missing(name)));
        self.shapes.insert(id.ok_or_else(|| missing("ID"))?, (kind, fields.collect::<Result<_, _>>()?));
        Ok(())
    }

    /// Reads a record that was written on this CPU.
    ///
    /// # Errors
    /// When the record is of a format that was not learnt, or too short for it.
    pub fn decode(&self, cpu: Cpu, record: &[u8]) -> Result<Decoded, FormatError> {
        let id = number(record, Field { offset: 0, size: 2 })? as u16;
        let (kind, fields) = self.shapes.get(&id).ok_or(FormatError::UnknownId { id })?;
        let at = |index: usize| number(record, fields[index]);
        let thread = |index| Ok(Tid(at(index)? as u32));
        let cgroup = |index| Ok(CgroupId(at(index)? as u64));
        let cpu_in = |index| Ok(Cpu(at(index)? as u32));
        Ok(Decoded::What(match kind {
            Kind::Switch => What::Switch { cpu, prev: thread(0)?, left: left(at(1)?), next: thread(2)? },
            Kind::Wakeup => What::Wakeup { thread: thread(0)?, cpu: cpu_in(1)?, first: false },
            Kind::WakeupNew => What::Wakeup { thread: thread(0)?, cpu: cpu_in(1)?, first: true },
            Kind::Migrate => What::Migrate { thread: thread(0)?, to: cpu_in(1)? },
            Kind::NewThread => What::NewThread {
                maker: thread(0)?,
                thread: thread(1)?,
                same_process: at(2)? & CLONE_THREAD != 0,
            },
            // A thread that exits goes to no set of cgroups, and the one before is the last.
            Kind::Join if at(2)? == 0 => return Ok(Decoded::Nothing),
            Kind::Join => What::Join { thread: thread(0)?, cgroup: cgroup(1)? },
            Kind::Throttle => What::Throttle { cgroup: cgroup(0)?, cpu: cpu_in(1)? },
            Kind::Unthrottle => What::Unthrottle { cgroup: cgroup(0)?, cpu: cpu_in(1)? },
            Kind::Mark => What::Mark(until_nul(record.get(fields[0].offset..).unwrap_or_default())),
            Kind::Attach if at(1)? == V2_ROOT => {
                let (cgroup, thread) = (cgroup(2)?, thread(0)?);
                return Ok(Decoded::Attach(
                    What::Attach { thread, cgroup },
                    cgroup,
                    text(record, fields[3])?,
                ));
            }
            Kind::NewCgroup if at(0)? == V2_ROOT => {
                return Ok(Decoded::NewCgroup(cgroup(1)?, text(record, fields[2])?));
            }
            Kind::Attach | Kind::NewCgroup => return Ok(Decoded::Nothing),
        }))
    }
}

fn left(prev_state: i64) -> Left {
    match prev_state {
        0 => Left::Runnable,
        state if state & STATE_PREEMPTED != 0 => Left::Runnable,
        state if state & STATE_DEAD != 0 => Left::Dead,
        _ => Left::Blocked,
    }
}

/// Finds `field:char prev_comm[16]; offset:8; size:16; signed:0;` by the name.
fn field(format: &str, wanted: &str) -> Option<Field> {
    format.lines().find_map(|line| {
        let mut parts = line.trim().strip_prefix("field:")?.split(';').map(str::trim);
        let name = parts.next()?.split_whitespace().last()?.split('[').next()?;
        let mut number = |label| parts.next()?.strip_prefix(label)?.parse().ok();
        (name == wanted).then_some(())?;
        Some(Field { offset: number("offset:")?, size: number("size:")? })
    })
}

fn number(record: &[u8], field: Field) -> Result<i64, FormatError> {
    let Field { offset, size } = field;
    let error = FormatError::Record { length: record.len(), offset };
    let bytes = record.get(offset..offset + size);
    let value = bytes.and_then(|bytes| match size {
        1 => bytes.first().map(|byte| i64::from(*byte)),
        2 => bytes.first_chunk().map(|bytes| i64::from(u16::from_ne_bytes(*bytes))),
        4 => bytes.first_chunk().map(|bytes| i64::from(i32::from_ne_bytes(*bytes))),
        8 => bytes.first_chunk().map(|bytes| i64::from_ne_bytes(*bytes)),
        _ => None,
    });
    value.ok_or(error)
}

/// A `__data_loc` string: its place in the record is in the lower half of the field, its length in the upper.
fn text(record: &[u8], field: Field) -> Result<String, FormatError> {
    let location = number(record, field)?;
    let (offset, length) = ((location & 0xffff) as usize, ((location >> 16) & 0xffff) as usize);
    let bytes =
        record.get(offset..offset + length).ok_or(FormatError::Record { length: record.len(), offset })?;
    Ok(until_nul(bytes))
}

fn until_nul(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim_end_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWITCH: &str = "name: sched_switch\nID: 372\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;\n\
        \tfield:pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;\n\
        \tfield:long prev_state;\toffset:32;\tsize:8;\tsigned:1;\n\
        \tfield:pid_t next_pid;\toffset:56;\tsize:4;\tsigned:1;\n";

    const ATTACH: &str = "ID: 538\n\
        \tfield:int dst_root;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:u64 dst_id;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:int pid;\toffset:24;\tsize:4;\tsigned:1;\n\
        \tfield:__data_loc char[] dst_path;\toffset:28;\tsize:4;\tsigned:0;\n";

    fn record(id: u16, fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut record = vec![0; 64];
        record[..2].copy_from_slice(&id.to_ne_bytes());
        for (offset, bytes) in fields {
            record[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        record
    }

    #[test]
    fn switches_tell_in_which_state_the_thread_left() {
        let mut decoder = Decoder::default();
        decoder.learn(Kind::Switch, SWITCH).unwrap();
        for (state, left) in [
            (0_u64, Left::Runnable),
            (0x100, Left::Runnable),
            (1, Left::Blocked),
            (2, Left::Blocked),
            (0x80, Left::Blocked), // I: idle kernel thread
            (0x10, Left::Dead),
            (0x20, Left::Dead),
        ] {
            let state = state.to_ne_bytes();
            let bytes = record(372, &[(24, &7_u32.to_ne_bytes()), (32, &state), (56, &9_u32.to_ne_bytes())]);
            let expected = What::Switch { cpu: Cpu(1), prev: Tid(7), left, next: Tid(9) };
            assert_eq!(decoder.decode(Cpu(1), &bytes), Ok(Decoded::What(expected)));
        }
    }

    #[test]
    fn only_the_v2_hierarchy_counts() {
        let mut decoder = Decoder::default();
        decoder.learn(Kind::Attach, ATTACH).unwrap();
        let place = ((3_u32 << 16) | 40).to_ne_bytes();
        let fields: [(usize, &[u8]); 4] =
            [(16, &99_u64.to_ne_bytes()), (24, &7_u32.to_ne_bytes()), (28, &place), (40, b"/a\0")];
        let mut bytes = record(538, &fields);
        let expected = What::Attach { thread: Tid(7), cgroup: CgroupId(99) };
        assert_eq!(
            decoder.decode(Cpu(0), &bytes),
            Ok(Decoded::Attach(expected, CgroupId(99), "/a".to_owned()))
        );
        bytes[8] = 1;
        assert_eq!(decoder.decode(Cpu(0), &bytes), Ok(Decoded::Nothing));
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut decoder = Decoder::default();
        let error = decoder.learn(Kind::Switch, "ID: 1\n").unwrap_err();
        assert_eq!(error.to_string(), "the format of sched/sched_switch does not describe prev_pid");
        assert_eq!(decoder.decode(Cpu(0), &[5, 0]), Err(FormatError::UnknownId { id: 5 }));
        assert!(decoder.decode(Cpu(0), &[]).is_err());
    }
}
