//! Checkpoints: what is remembered, as a text that can be stored and read again without loss.
//!
//! ```text
//! loadline-checkpoint 4
//! 5b3f0a91 {"…": …}          one entry a line: CRC-32 of its JSON, and the JSON
//! …
//! end 2                      how many there were
//! ```
//!
//! # Invariants
//!
//! * What is read is what was written, or is listed as lost: an entry is never half there.
//! * Damage to a line costs that line. A text that ends too soon costs what is missing.
//! * A version that is not known is refused as a whole, and nothing of it is guessed.

use std::fmt::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version that is written, and the only one that is read. It rises with every change by which an older text would not be
/// read as what it was: a test of [`State::restored`](crate::decide::state::State::restored) keeps a text of this one.
pub const VERSION: u32 = 5;
const MAGIC: &str = "loadline-checkpoint ";
const END: &str = "end ";

/// Why a text is no checkpoint.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Its first line is not that of one.
    #[error("this is no checkpoint: its first line is not `{MAGIC}` and a number")]
    Foreign,
    /// It is of another version.
    #[error("the checkpoint has version {found}, and only version {VERSION} is read")]
    Version {
        /// Which.
        found: u32,
    },
}

/// Why an entry cannot be stored.
#[derive(Debug, thiserror::Error)]
#[error("entry {entry} of the checkpoint cannot be written as JSON")]
pub struct WriteError {
    /// Which, from 0.
    pub entry: usize,
    /// What serde says.
    pub source: serde_json::Error,
}

/// What is missing of a checkpoint.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// A line is not what was written.
    #[error("line {line} of the checkpoint is damaged")]
    Damaged {
        /// Which, from 1.
        line: usize,
    },
    /// A line is what was written, and no entry.
    #[error("line {line} of the checkpoint is no entry: {problem}")]
    Malformed {
        /// Which, from 1.
        line: usize,
        /// What serde says.
        problem: String,
    },
    /// It ends before its last line, or has other lines than were written.
    #[error("the checkpoint was cut off or joined: {found} entries were found, and {written} written")]
    Cut {
        /// Lines that are entries, damaged ones too.
        found: usize,
        /// As its last line says; unknown where that is missing.
        written: Written,
    },
}

/// How many entries a checkpoint says that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// So many.
    Entries(usize),
    /// Its last line is missing.
    Unknown,
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Entries(entries) => entries.fmt(f),
            Self::Unknown => f.write_str("an unknown number"),
        }
    }
}

/// What could be read.
#[derive(Debug, PartialEq)]
pub struct Restored<T> {
    /// The entries, in the order in which they were written.
    pub entries: Vec<T>,
    /// What is missing.
    pub lost: Vec<Loss>,
}

/// The text of a checkpoint with these entries.
pub fn write<T: Serialize>(entries: impl IntoIterator<Item = T>) -> Result<String, WriteError> {
    let mut text = format!("{MAGIC}{VERSION}\n");
    let mut written = 0;
    for (entry, value) in entries.into_iter().enumerate() {
        let json = serde_json::to_string(&value).map_err(|source| WriteError { entry, source })?;
        // Writing into a string does not fail.
        let _ = writeln!(text, "{:08x} {json}", crc32fast::hash(json.as_bytes()));
        written = entry + 1;
    }
    let _ = writeln!(text, "{END}{written}");
    Ok(text)
}

/// Reads a checkpoint: every entry that is as it was written, and what is missing.
pub fn read<T: DeserializeOwned>(text: &[u8]) -> Result<Restored<T>, CheckpointError> {
    let mut lines = (1..).zip(text.split(|byte| *byte == b'\n'));
    let head = lines.next().and_then(|(_, line)| std::str::from_utf8(line).ok());
    let version = head.and_then(|line| line.strip_prefix(MAGIC)).and_then(|version| version.parse().ok());
    match version {
        Some(VERSION) => {}
        Some(found) => return Err(CheckpointError::Version { found }),
        None => return Err(CheckpointError::Foreign),
    }
    let mut restored = Restored { entries: Vec::new(), lost: Vec::new() };
    let (mut found, mut written) = (0, Written::Unknown);
    for (line, content) in lines.filter(|(_, content)| !content.is_empty()) {
        if let Some(entries) = end(content) {
            written = Written::Entries(entries);
            continue;
        }
        found += 1;
        match entry(content).map(serde_json::from_slice) {
            Some(Ok(entry)) => restored.entries.push(entry),
            Some(Err(error)) => restored.lost.push(Loss::Malformed { line, problem: error.to_string() }),
            None => restored.lost.push(Loss::Damaged { line }),
        }
    }
    if written != Written::Entries(found) {
        restored.lost.push(Loss::Cut { found, written });
    }
    Ok(restored)
}

/// How many entries there are, if this is the last line.
fn end(line: &[u8]) -> Option<usize> {
    std::str::from_utf8(line).ok()?.strip_prefix(END)?.parse().ok()
}

/// The JSON of a line that is what was written.
fn entry(line: &[u8]) -> Option<&[u8]> {
    let (sum, json) = (line.get(..8)?, line.get(9..)?);
    // As text: the same number in capitals is not what was written.
    let written = format!("{:08x}", crc32fast::hash(json));
    (line[8] == b' ' && sum == written.as_bytes()).then_some(json)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Entry = (String, Vec<u16>);

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        prop::collection::vec((".{0,12}", prop::collection::vec(any::<u16>(), 0..20)), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_is_written_is_read_again(entries in entries()) {
            let text = write(&entries).unwrap();
            prop_assert_eq!(read(text.as_bytes()), Ok(Restored { entries, lost: Vec::new() }));
        }

        #[test]
        fn a_text_that_was_cut_gives_what_is_left_and_says_so(entries in entries(), at in any::<prop::sample::Index>()) {
            let text = write(&entries).unwrap();
            // A line's end may go: nothing is lost with it.
            let cut = &text.as_bytes()[..at.index(text.len() - 1)];
            let whole = cut.split(|byte| *byte == b'\n').count();
            match read::<Entry>(cut) {
                Ok(restored) => {
                    let kept = restored.entries.len();
                    prop_assert_eq!(&restored.entries, &entries[..kept]);
                    prop_assert!(kept + 2 >= whole, "{kept} of {whole} lines");
                    prop_assert!(!restored.lost.is_empty());
                }
                Err(error) => prop_assert!(whole == 1, "{error}"),
            }
        }

        #[test]
        fn a_damaged_byte_costs_no_more_than_its_lines(
            entries in entries(), at in any::<prop::sample::Index>(), to in any::<u8>()
        ) {
            let text = write(&entries).unwrap();
            let head = text.find('\n').unwrap() + 1;
            let mut bytes = text.clone().into_bytes();
            let at = head + at.index(bytes.len() - head);
            prop_assume!(bytes[at] != to && at + 1 < bytes.len());
            bytes[at] = to;
            let restored = read::<Entry>(&bytes).unwrap();
            prop_assert!(!restored.lost.is_empty(), "the damage was not seen");
            // A newline that is gone joins two lines.
            prop_assert!(restored.entries.len() + 2 >= entries.len());
            prop_assert!(restored.entries.iter().all(|entry| entries.contains(entry)));
        }
    }

    #[test]
    fn what_is_no_checkpoint_or_of_another_version_is_refused() {
        assert_eq!(read::<Entry>(b""), Err(CheckpointError::Foreign));
        assert_eq!(read::<Entry>(b"loadline-checkpoint one\nend 0\n"), Err(CheckpointError::Foreign));
        let error = read::<Entry>(b"loadline-checkpoint 1\nend 0\n").unwrap_err();
        assert_eq!(error, CheckpointError::Version { found: 1 });
        let only = format!("the checkpoint has version 1, and only version {VERSION} is read");
        assert_eq!(error.to_string(), only);
    }

    #[test]
    fn losses_name_their_line() {
        let text = write([("a".to_string(), vec![1]), ("b".to_string(), vec![2])]).unwrap();
        let damaged = text.replace("[1]", "[9]");
        let restored = read::<Entry>(damaged.as_bytes()).unwrap();
        assert_eq!(restored.entries, [("b".to_string(), vec![2])]);
        assert_eq!(restored.lost, [Loss::Damaged { line: 2 }]);
        let other = write([1]).unwrap();
        let restored = read::<Entry>(other.as_bytes()).unwrap();
        assert!(matches!(&restored.lost[..], [Loss::Malformed { line: 2, .. }]), "{:?}", restored.lost);
    }
}
