//! Frames: payloads with a length, a number and checksums, found again after damage by their marks.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | mark: of which kind it is |
//! | 4..8 | bytes of the payload |
//! | 8..16 | number of the snapshot, from 1; 0 for the header |
//! | 16..20 | CRC-32 of the payload |
//! | 20..24 | of a difference: that of the payload of the frame before it |
//! | 24..28 | CRC-32 of all this |
//! | 28.. | payload |

use std::io::{self, Read};

use super::PAYLOAD_BYTES;

/// Bytes before the payload.
pub(super) const HEAD_BYTES: usize = 28;
/// The first byte of every mark: it begins no UTF-8 text.
const MARK: u8 = 0xF5;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header,
    Key,
    Difference,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Header, Self::Key, Self::Difference];

    const fn mark(self) -> [u8; 4] {
        match self {
            Self::Header => [MARK, b'H', b'D', b'R'],
            Self::Key => [MARK, b'K', b'E', b'Y'],
            Self::Difference => [MARK, b'D', b'I', b'F'],
        }
    }
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: Kind,
    pub sequence: u64,
    /// Bytes of the payload; at most [`PAYLOAD_BYTES`].
    pub length: usize,
    /// CRC-32 of the payload.
    pub checksum: u32,
    /// That of the frame that a difference is to; 0 in others.
    pub base: u32,
}

impl Head {
    /// Of a payload of at most [`PAYLOAD_BYTES`].
    pub(super) fn new(kind: Kind, sequence: u64, base: u32, payload: &[u8]) -> Self {
        Self { kind, sequence, length: payload.len(), checksum: crc32fast::hash(payload), base }
    }

    /// The bytes of the whole frame.
    pub(super) fn before(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
        bytes.extend(self.kind.mark());
        bytes.extend((self.length as u32).to_le_bytes());
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(self.checksum.to_le_bytes());
        bytes.extend(self.base.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.extend(payload);
        bytes
    }

    /// `None` where this is no head.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (mark, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (checksum, rest) = rest.split_first_chunk()?;
        let (base, rest) = rest.split_first_chunk()?;
        let own = rest.first_chunk()?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.mark() == *mark)?;
        let length = u32::from_le_bytes(*length) as usize;
        let good = crc32fast::hash(&bytes[..HEAD_BYTES - 4]) == u32::from_le_bytes(*own);
        (good && length <= PAYLOAD_BYTES).then(|| Self {
            kind,
            length,
            sequence: u64::from_le_bytes(*sequence),
            checksum: u32::from_le_bytes(*checksum),
            base: u32::from_le_bytes(*base),
        })
    }

    /// Whether these few bytes may be the beginning of one.
    fn begins(bytes: &[u8]) -> bool {
        bytes.len() < HEAD_BYTES
            && Kind::ALL.iter().any(|kind| bytes.iter().zip(kind.mark()).all(|(byte, mark)| *byte == mark))
    }
}

/// A whole frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub head: Head,
    pub payload: Vec<u8>,
    /// Where it begins.
    pub at_byte: u64,
}

impl Frame {
    /// Where it ends.
    pub(super) fn end_byte(&self) -> u64 {
        self.at_byte + (HEAD_BYTES + self.payload.len()) as u64
    }
}

/// What comes next in a file.
#[derive(Debug)]
pub(super) enum Next {
    Frame(Frame),
    /// So many bytes, from here to the end, are the beginning of a frame.
    Torn {
        at_byte: u64,
        bytes: u64,
    },
    End,
}

/// Finds frames, whatever lies between them. Holds one at a time.
pub(super) struct Frames<R> {
    from: R,
    /// Read and not yet used.
    held: Vec<u8>,
    /// Where `held` begins.
    at_byte: u64,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, held: Vec::new(), at_byte: 0 }
    }

    /// Where the next byte is that was not used.
    pub(super) fn at_byte(&self) -> u64 {
        self.at_byte
    }

    /// So many bytes, or fewer at the end; they are used up.
    pub(super) fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        self.hold(count)?;
        let rest = self.held.split_off(count.min(self.held.len()));
        self.at_byte += self.held.len() as u64;
        Ok(std::mem::replace(&mut self.held, rest))
    }

    /// The next whole frame. Bytes before it that belong to none are passed over.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        loop {
            self.hold(HEAD_BYTES)?;
            if self.held.is_empty() {
                return Ok(Next::End);
            }
            if let Some(head) = Head::parse(&self.held) {
                let bytes = HEAD_BYTES + head.length;
                self.hold(bytes)?;
                let Some(payload) = self.held.get(HEAD_BYTES..bytes) else { return Ok(self.torn()) };
                if crc32fast::hash(payload) == head.checksum {
                    let at_byte = self.at_byte;
                    let payload = self.take(bytes)?.split_off(HEAD_BYTES);
                    return Ok(Next::Frame(Frame { head, payload, at_byte }));
                }
            } else if Head::begins(&self.held) {
                return Ok(self.torn());
            }
            // This is none: look for the next mark.
            let skip =
                self.held.iter().skip(1).position(|byte| *byte == MARK).map_or(self.held.len(), |at| at + 1);
            self.take(skip)?;
        }
    }

    fn torn(&mut self) -> Next {
        let torn = Next::Torn { at_byte: self.at_byte, bytes: self.held.len() as u64 };
        self.at_byte += self.held.len() as u64;
        self.held.clear();
        torn
    }

    /// Reads until so many bytes are held, or there are no more. A length that lies costs nothing beyond what is
    /// there.
    fn hold(&mut self, count: usize) -> io::Result<()> {
        let lacks = count.saturating_sub(self.held.len());
        if lacks != 0 {
            self.from.by_ref().take(lacks as u64).read_to_end(&mut self.held)?;
        }
        Ok(())
    }
}
