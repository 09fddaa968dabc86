//! Reads recordings, also damaged ones.

use std::io::Read;

use prost::Message as _;

use super::frame::{Frame, Frames, Head, Kind, Next};
use super::{Header, MAGIC, RUN_BYTES, RecordingError, VERSION};
use super::{difference, pack, wire};
use crate::snapshot::Snapshot;

/// Gives the snapshots of a recording in their order, and an error in the place of those that are lost.
///
/// After [`RecordingError::Damaged`] and [`RecordingError::Invalid`] more may come; after any other error
/// nothing does.
pub struct Reader<R> {
    frames: Frames<R>,
    header: Header,
    state: State,
}

/// What was read so far.
#[derive(Default)]
struct State {
    /// The last snapshot, if nothing is missing after it.
    earlier: Option<Snapshot>,
    /// Number of the last frame that was given or complained of.
    sequence: u64,
    /// Checksum of that frame.
    checksum: u32,
    /// Bytes of the last key frame and the differences since.
    run: usize,
    /// Where it ends.
    told_to: u64,
    /// A good frame before which something is missing that must be told first.
    waiting: Option<Frame>,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Opens a recording: reads its header. Reads in small pieces, so a file wants a `BufReader` around it.
    pub fn open(from: R) -> Result<Self, RecordingError> {
        let mut frames = Frames::new(from);
        let begins = frames.take(MAGIC.len() + size_of_val(&VERSION))?;
        let Some((magic, version)) = begins.split_first_chunk() else { return Err(too_short(&begins)) };
        if *magic != MAGIC {
            return Err(RecordingError::NotARecording);
        }
        let version = version.first_chunk().ok_or_else(|| too_short(&begins))?;
        let version = u32::from_le_bytes(*version);
        if !(1..=VERSION).contains(&version) {
            return Err(RecordingError::Version { version });
        }
        let at_byte = frames.at_byte();
        let header = match frames.next()? {
            Next::Frame(frame) if frame.head.kind == Kind::Header && frame.at_byte == at_byte => {
                wire::Header::decode(&*frame.payload).map_err(|_| RecordingError::Header)?
            }
            Next::Torn { at_byte: torn, bytes } if torn == at_byte => {
                return Err(RecordingError::Cut { at_byte, bytes });
            }
            Next::End if frames.at_byte() == at_byte => {
                return Err(RecordingError::Cut { at_byte, bytes: 0 });
            }
            _ => return Err(RecordingError::Header),
        };
        let state = State { told_to: frames.at_byte(), ..State::default() };
        Ok(Self { frames, header: header.into(), state })
    }

    /// What the recording is of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn read(&mut self) -> Result<Option<Snapshot>, RecordingError> {
        if let Some(frame) = self.state.waiting.take() {
            return self.state.give(frame).map(Some);
        }
        loop {
            match self.frames.next()? {
                Next::Frame(frame) if self.state.usable(&frame) => {
                    return match self.state.missing(&frame) {
                        None => self.state.give(frame).map(Some),
                        Some(missing) => {
                            self.state.waiting = Some(frame);
                            Err(missing)
                        }
                    };
                }
                // It is told of as lost when the next good one comes.
                Next::Frame(_) => {}
                Next::Torn { at_byte, bytes } if at_byte == self.state.told_to => {
                    self.state.ended = true;
                    return Err(RecordingError::Cut { at_byte, bytes });
                }
                Next::Torn { .. } | Next::End => {
                    self.state.ended = true;
                    let at_byte = self.state.told_to;
                    return match self.frames.at_byte() - at_byte {
                        0 => Ok(None),
                        bytes => Err(RecordingError::Damaged { at_byte, bytes, snapshots: None }),
                    };
                }
            }
        }
    }
}

impl State {
    /// Whether a snapshot can be made of this frame.
    fn usable(&self, frame: &Frame) -> bool {
        let Head { kind, sequence, base, .. } = frame.head;
        match kind {
            Kind::Header => false,
            Kind::Key => sequence > self.sequence,
            Kind::Difference => {
                self.earlier.is_some()
                    && base == self.checksum
                    && self.sequence.checked_add(1) == Some(sequence)
            }
        }
    }

    /// What is missing before this frame, if anything is.
    fn missing(&self, frame: &Frame) -> Option<RecordingError> {
        let (at_byte, bytes) = (self.told_to, frame.at_byte - self.told_to);
        let snapshots = frame.head.sequence - self.sequence - 1;
        (bytes != 0 || snapshots != 0).then_some(RecordingError::Damaged {
            at_byte,
            bytes,
            snapshots: Some(snapshots),
        })
    }

    fn give(&mut self, frame: Frame) -> Result<Snapshot, RecordingError> {
        let at_byte = frame.at_byte;
        self.sequence = frame.head.sequence;
        self.checksum = frame.head.checksum;
        self.told_to = frame.end_byte();
        let invalid = |what| RecordingError::Invalid { at_byte, what };
        // Taken: after an error only a key frame can follow.
        let (mut snapshot, run) = match (frame.head.kind, self.earlier.take()) {
            (Kind::Difference, Some(earlier)) => (earlier, self.run),
            _ => (Snapshot::default(), 0),
        };
        let bytes = pack::unpack(&frame.payload, RUN_BYTES - run).map_err(invalid)?;
        difference::apply(&mut snapshot, &bytes).map_err(invalid)?;
        self.run = run + bytes.len();
        self.earlier = Some(snapshot.clone());
        Ok(snapshot)
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Snapshot, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state.ended {
            return None;
        }
        let read = self.read();
        if matches!(read, Err(RecordingError::Io(_))) {
            self.state.ended = true;
        }
        read.transpose()
    }
}

/// What so few bytes are: a recording that was cut at once, or none.
fn too_short(bytes: &[u8]) -> RecordingError {
    if !bytes.is_empty() && MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]) {
        RecordingError::Cut { at_byte: 0, bytes: bytes.len() as u64 }
    } else {
        RecordingError::NotARecording
    }
}
