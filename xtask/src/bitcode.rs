//! Which LLVM wrote a file of bitcode: bpf-linker does not say which one it has, but what it writes does.
//!
//! The first block of such a file identifies the writer, in a record of characters. The format is LLVM's
//! bitstream: <https://llvm.org/docs/BitCodeFormat.html>

/// The major version of the LLVM that wrote this, if it is bitcode that says so.
pub fn written_by(bitcode: &[u8]) -> Option<u32> {
    let producer = producer(bitcode)?;
    producer.strip_prefix("LLVM")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// For example `LLVM22.1.4-rust-1.97.0-nightly`.
fn producer(bitcode: &[u8]) -> Option<String> {
    const MAGIC: &[u8] = b"BC\xc0\xde";
    const ENTER_SUBBLOCK: u32 = 1;
    const DEFINE_ABBREV: u32 = 2;
    const UNABBREVIATED: u32 = 3;
    const FIRST_ABBREV: u32 = 4;
    const ARRAY: u32 = 3;
    const CHAR6: u32 = 4;
    const IDENTIFICATION_BLOCK: u32 = 13;
    const IDENTIFICATION_STRING: u32 = 1;
    let mut bits = Bits { bytes: bitcode.strip_prefix(MAGIC)?, at: 0 };
    // Outside of any block, abbreviations' numbers have two bits.
    (bits.fixed(2)? == ENTER_SUBBLOCK && bits.vbr(8)? == IDENTIFICATION_BLOCK).then_some(())?;
    let width = bits.vbr(4)?;
    bits.align();
    let _words = bits.fixed(32)?;
    // The writer has an abbreviation for a record of this code that is an array of characters in six bits …
    (bits.fixed(width)? == DEFINE_ABBREV && bits.vbr(5)? == 3).then_some(())?;
    (bits.literal()? == IDENTIFICATION_STRING).then_some(())?;
    (bits.encoding()? == ARRAY && bits.encoding()? == CHAR6).then_some(())?;
    match bits.fixed(width)? {
        FIRST_ABBREV => (0..bits.vbr(6)?).map(|_| bits.character()).collect(),
        // … and does without where the name has others in it.
        UNABBREVIATED if bits.vbr(6)? == IDENTIFICATION_STRING => {
            (0..bits.vbr(6)?).map(|_| char::from_u32(bits.vbr(6)?)).collect()
        }
        _ => None,
    }
}

/// A stream of bits, the lowest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    /// Of bits.
    at: usize,
}

impl Bits<'_> {
    /// A number of at most 32 bits.
    fn fixed(&mut self, width: u32) -> Option<u32> {
        let mut number = 0;
        for bit in 0..width.min(u32::BITS) {
            let byte = self.bytes.get(self.at / 8)?;
            number |= u32::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Some(number)
    }

    /// A number in chunks: the highest bit of each says whether another follows.
    fn vbr(&mut self, width: u32) -> Option<u32> {
        let more = 1 << (width - 1);
        let (mut number, mut shift) = (0, 0);
        loop {
            let chunk = self.fixed(width)?;
            number |= (chunk & (more - 1)).checked_shl(shift)?;
            shift += width - 1;
            if chunk & more == 0 {
                return Some(number);
            }
        }
    }

    /// To the next word.
    fn align(&mut self) {
        self.at = self.at.next_multiple_of(32);
    }

    fn literal(&mut self) -> Option<u32> {
        (self.fixed(1)? == 1).then(|| self.vbr(8))?
    }

    /// How an operand is written that is no literal; those that have a width are none of ours.
    fn encoding(&mut self) -> Option<u32> {
        (self.fixed(1)? == 0).then(|| self.fixed(3))?
    }

    /// A letter, a digit, a dot or an underscore.
    fn character(&mut self) -> Option<char> {
        const CHARACTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._";
        CHARACTERS.get(self.fixed(6)? as usize).copied().map(char::from)
    }
}

#[cfg(test)]
mod tests {
    use std::str;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2);
        digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// By bpf-linker 0.13 with Debian's LLVM 22, whose name has characters in six bits.
    const LINKERS: &str = "4243c0de3514000005000000620c30244a59bea66dfbb5cf0b51804c01000000";
    /// By a nightly rustc, whose name has other characters too.
    const RUSTCS: &str = "4243c0de351400000e000000620c301c81c70aac600bad200772e00671e00674d006f2500ff3400f6d10076e900777e00670d006ee900ee7800ef4c00ef9204401320500";

    #[test]
    fn both_ways_to_write_a_name_are_read() {
        assert_eq!(producer(&bytes(LINKERS)).as_deref(), Some("LLVM22.1.8"));
        assert_eq!(producer(&bytes(RUSTCS)).as_deref(), Some("LLVM22.1.4-rust-1.97.0-nightly"));
        assert_eq!(written_by(&bytes(RUSTCS)), Some(22));
    }

    #[test]
    fn anything_else_has_no_writer() {
        assert_eq!(written_by(b""), None);
        assert_eq!(written_by(b"\x7fELF and more than that, for as long as it takes"), None);
        let whole = bytes(RUSTCS);
        for length in 0..whole.len() - 20 {
            assert_eq!(written_by(&whole[..length]), None, "{length}");
        }
        assert_eq!(written_by(&[b"BC\xc0\xde".as_slice(), &[0xff; 64]].concat()), None);
    }
}
