//! Writes recordings.

use std::io::{self, Write};

use prost::Message as _;

use super::frame::{Head, Kind};
use super::{AppendError, CGROUPS, Header, KEY_EVERY, MAGIC, PAYLOAD_BYTES, RUN_BYTES, VERSION};
use super::{difference, pack, wire};
use crate::snapshot::Snapshot;

/// Appends snapshots to a file. Each is handed to the operating system whole and at once, so that the end of this process
/// costs none; a crash of the machine costs those that it had not put on the disk yet.
pub struct Writer<W> {
    to: W,
    /// What the next difference is to; `None` where the next frame must be a key frame.
    earlier: Option<Snapshot>,
    /// Head of its frame, or of the last one that was written.
    last: Head,
    /// Number of the last key frame.
    key: u64,
    /// Every so many snapshots one is whole.
    pub(super) key_every: u64,
    /// Bytes of it and of the differences since.
    run: usize,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    pub fn create(mut to: W, header: Header) -> io::Result<Self> {
        let header = wire::Header::from(header).encode_to_vec();
        let last = Head::new(Kind::Header, 0, 0, &header);
        let mut bytes = [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat();
        bytes.extend(last.before(&header));
        to.write_all(&bytes)?;
        to.flush()?;
        Ok(Self { to, earlier: None, last, key: 0, key_every: KEY_EVERY, run: 0 })
    }

    /// Appends a snapshot; says how many bytes that took.
    pub fn append(&mut self, snapshot: &Snapshot) -> Result<usize, AppendError> {
        let cgroups = snapshot.cgroups.len();
        if cgroups > CGROUPS {
            return Err(AppendError::TooLarge { cgroups, bytes: 0 });
        }
        let sequence = self.last.sequence + 1;
        // Taken: after an error the next frame is a key frame, so that it hangs on nothing that may not be there.
        let earlier = self.earlier.take().filter(|_| sequence - self.key < self.key_every);
        let difference = earlier.as_ref().map(|earlier| difference::between(earlier, snapshot));
        let difference = difference.filter(|bytes| self.run + bytes.len() <= RUN_BYTES);
        let (kind, bytes, run) = match difference {
            Some(bytes) => (Kind::Difference, bytes, self.run),
            None => (Kind::Key, difference::between(&Snapshot::default(), snapshot), 0),
        };
        let run = run + bytes.len();
        let packed = pack::pack(&bytes)?;
        if run > RUN_BYTES || packed.len() > PAYLOAD_BYTES {
            return Err(AppendError::TooLarge { cgroups, bytes: bytes.len() });
        }
        let base = if kind == Kind::Key { 0 } else { self.last.checksum };
        let head = Head::new(kind, sequence, base, &packed);
        let frame = head.before(&packed);
        self.to.write_all(&frame)?;
        self.to.flush()?;
        self.last = head;
        self.run = run;
        if kind == Kind::Key {
            self.key = sequence;
        }
        match earlier {
            // Keeps what is allocated.
            Some(mut earlier) => {
                earlier.clone_from(snapshot);
                self.earlier = Some(earlier);
            }
            None => self.earlier = Some(snapshot.clone()),
        }
        Ok(frame.len())
    }
}
