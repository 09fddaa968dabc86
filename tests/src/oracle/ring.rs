//! The kernel's trace ring buffer: pages as `per_cpu/cpuN/trace_pipe_raw` gives them → records with ns-exact times.
//!
//! The text files print microseconds. A page is a header (time of its first event, bytes used) and events, each a word of
//! 5 bits of type or length and 27 bits of time since the event before it, then its data:
//! `Documentation/trace/ring-buffer-map.rst`, `include/linux/ring_buffer.h`.

/// Why pages could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// `events/header_page` does not say where the fields are.
    #[error("events/header_page does not describe the field {field}")]
    Header {
        /// The field that is missing.
        field: &'static str,
    },
    /// An event reaches beyond the bytes used in its page.
    #[error("a page of the ring buffer is cut off at byte {at}")]
    CutOff {
        /// Where in the page.
        at: usize,
    },
    /// The kernel says that events were dropped before this page.
    #[error("events were lost before a page of the ring buffer: give it bigger buffers")]
    Lost,
}

/// How this kernel lays out a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    commit_at: usize,
    data_at: usize,
    /// Size of a page in bytes: what one read asks for.
    pub bytes: usize,
}

/// An event's time and its data, which begins with the number of its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Nanoseconds of the trace clock.
    pub at_ns: u64,
    /// Fields at the offsets that the event's format gives.
    pub data: &'a [u8],
}

/// The `commit` word also carries flags: one of them says that events were lost before the page.
const COMMIT_BYTES: u64 = (1 << 27) - 1;
const COMMIT_MISSED: u64 = 1 << 31;

const TYPE_LONG: u32 = 0;
const TYPE_PADDING: u32 = 29;
const TYPE_TIME_EXTEND: u32 = 30;
const TYPE_TIME_STAMP: u32 = 31;

impl PageLayout {
    /// Reads `events/header_page`.
    ///
    /// # Errors
    /// When it does not name the fields.
    pub fn parse(header_page: &str) -> Result<Self, RingError> {
        let (commit_at, _) = place(header_page, "commit")?;
        let (data_at, length) = place(header_page, "data")?;
        Ok(Self { commit_at, data_at, bytes: data_at + length })
    }

    /// The records of one page.
    ///
    /// # Errors
    /// When the page is cut off, or says that events were lost before it.
    pub fn records<'a>(&self, page: &'a [u8]) -> Result<Vec<Record<'a>>, RingError> {
        let commit = long(page, self.commit_at)?;
        if commit & COMMIT_MISSED != 0 {
            return Err(RingError::Lost);
        }
        let end = self.data_at + (commit & COMMIT_BYTES) as usize;
        let page = page.get(..end).ok_or(RingError::CutOff { at: end })?;
        let mut at_ns = long(page, 0)?;
        let mut at = self.data_at;
        let mut records = Vec::new();
        while at < end {
            let head = word(page, at)?;
            let (kind, delta) = (head & 0x1f, u64::from(head >> 5));
            let body = at + 4;
            match kind {
                // The rest of the page is unused.
                TYPE_PADDING if delta == 0 => break,
                TYPE_PADDING => at = body + word(page, body)? as usize,
                TYPE_TIME_EXTEND => {
                    at_ns += (u64::from(word(page, body)?) << 27) + delta;
                    at = body + 4;
                }
                // Absolute, in 59 bits: 18 years of nanoseconds since boot.
                TYPE_TIME_STAMP => {
                    at_ns = (u64::from(word(page, body)?) << 27) + delta;
                    at = body + 4;
                }
                _ => {
                    at_ns += delta;
                    // A long event gives its length, this word included; a short one in words, as its type.
                    let (from, to) = match kind {
                        TYPE_LONG => (body + 4, body + (word(page, body)? as usize).next_multiple_of(4)),
                        words => (body, body + 4 * words as usize),
                    };
                    let data = page.get(from..to).ok_or(RingError::CutOff { at })?;
                    records.push(Record { at_ns, data });
                    at = to;
                }
            }
        }
        Ok(records)
    }
}

/// Offset and size of a field in lines like `field: local_t commit; offset:8; size:8; signed:1;`.
fn place(header_page: &str, field: &'static str) -> Result<(usize, usize), RingError> {
    let of_line = |line: &str| {
        let mut parts = line.split(';').map(str::trim);
        let named = parts.next()?.split_whitespace().last()? == field;
        let mut number = |label| parts.next()?.strip_prefix(label)?.parse().ok();
        named.then_some(())?;
        Some((number("offset:")?, number("size:")?))
    };
    header_page.lines().find_map(of_line).ok_or(RingError::Header { field })
}

fn word(page: &[u8], at: usize) -> Result<u32, RingError> {
    let found = page.get(at..).and_then(<[u8]>::first_chunk).ok_or(RingError::CutOff { at })?;
    Ok(u32::from_ne_bytes(*found))
}

fn long(page: &[u8], at: usize) -> Result<u64, RingError> {
    let found = page.get(at..).and_then(<[u8]>::first_chunk).ok_or(RingError::CutOff { at })?;
    Ok(u64::from_ne_bytes(*found))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
        \tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
        \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\
        \tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n";

    fn page(at_ns: u64, commit_flags: u64, words: &[u32]) -> Vec<u8> {
        let mut page = at_ns.to_ne_bytes().to_vec();
        page.extend(((words.len() as u64 * 4) | commit_flags).to_ne_bytes());
        page.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        page.resize(4096, 0);
        page
    }

    fn head(kind: u32, delta: u32) -> u32 {
        kind | (delta << 5)
    }

    #[test]
    fn the_header_is_read() {
        let layout = PageLayout::parse(HEADER).unwrap();
        assert_eq!(layout, PageLayout { commit_at: 8, data_at: 16, bytes: 4096 });
        assert_eq!(PageLayout::parse("").unwrap_err(), RingError::Header { field: "commit" });
    }

    #[test]
    fn every_kind_of_event_moves_time_and_place_as_the_kernel_means_it() {
        let layout = PageLayout::parse(HEADER).unwrap();
        let bytes = page(
            1000,
            0,
            &[
                head(2, 5),
                0xaa,
                0xbb, // short, two words, at 1005
                head(TYPE_TIME_EXTEND, 7),
                1, // + 2^27 + 7
                head(TYPE_LONG, 1),
                12,
                0xcc,
                0xdd, // long: 12 bytes with the length itself
                head(TYPE_PADDING, 1),
                8,
                0xffff_ffff, // discarded: 8 bytes with the length itself
                head(TYPE_TIME_STAMP, 3),
                4, // at 4 * 2^27 + 3
                head(1, 0),
                0xee,
                head(TYPE_PADDING, 0),
                99, // unused from here on
            ],
        );
        let records = layout.records(&bytes).unwrap();
        let words = |record: &Record<'_>| -> Vec<u32> {
            record.data.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word)).collect()
        };
        let got: Vec<_> = records.iter().map(|record| (record.at_ns, words(record))).collect();
        let extended = 1005 + (1 << 27) + 7;
        let expected =
            vec![(1005, vec![0xaa, 0xbb]), (extended + 1, vec![0xcc, 0xdd]), ((4 << 27) + 3, vec![0xee])];
        assert_eq!(got, expected);
    }

    #[test]
    fn loss_and_cut_off_pages_are_errors() {
        let layout = PageLayout::parse(HEADER).unwrap();
        assert_eq!(layout.records(&page(0, COMMIT_MISSED, &[])), Err(RingError::Lost));
        assert_eq!(layout.records(&page(0, 0, &[head(3, 0), 1])), Err(RingError::CutOff { at: 16 }));
        assert!(layout.records(&[0; 12]).is_err());
    }
}
