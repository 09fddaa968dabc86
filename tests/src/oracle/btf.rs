//! Offsets of kernel struct fields on the running kernel, from its BTF: raw bytes → byte offset of `struct.field`.
//!
//! A reader of its own, and only as much as that takes: an oracle must not lean on the code that it judges.
//! The format: <https://docs.kernel.org/bpf/btf.html>.

/// Where the running kernel keeps its BTF.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why an offset could not be told.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The bytes are not BTF of this machine's byte order, or end too early.
    #[error("this is not BTF, or it is cut off")]
    Malformed,
    /// A kind of type that this reader does not know, so that it cannot tell where the next one begins.
    #[error("BTF type {id} is of the unknown kind {kind}")]
    UnknownKind {
        /// Number of the type.
        id: usize,
        /// Its kind.
        kind: u32,
    },
    /// The kernel has no such struct with such a field.
    #[error("this kernel's BTF has no field {structure}.{field}")]
    NoSuchField {
        /// The struct asked for.
        structure: String,
        /// The field asked for.
        field: String,
    },
}

const MAGIC: u32 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// The types of a kernel.
pub struct Btf<'a> {
    types: Vec<Type<'a>>,
    strings: &'a [u8],
}

struct Type<'a> {
    name: u32,
    kind: u32,
    /// Whether a member's offset shares its word with the width of a bit field.
    packed_offsets: bool,
    detail: &'a [u8],
}

impl<'a> Btf<'a> {
    /// Reads the list of types.
    ///
    /// # Errors
    /// When the bytes are not BTF, or have kinds of types that came after this was written.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        if word(bytes, 0)? & 0xffff != MAGIC {
            return Err(BtfError::Malformed);
        }
        let section = |offset_at, length_at| {
            let start = word(bytes, 4)? as usize + word(bytes, offset_at)? as usize;
            bytes.get(start..start + word(bytes, length_at)? as usize).ok_or(BtfError::Malformed)
        };
        let mut rest = section(8, 12)?;
        // Type 0 is `void` and is not in the list.
        let mut types = vec![Type { name: 0, kind: 0, packed_offsets: false, detail: &[] }];
        while !rest.is_empty() {
            let (name, info) = (word(rest, 0)?, word(rest, 4)?);
            let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let length = match kind {
                2 | 7..=12 | 16 | 18 => 0, // ptr, fwd, typedef, qualifiers, func, float, type_tag
                1 | 14 | 17 => 4,          // int, var, decl_tag
                3 => 12,                   // array
                KIND_STRUCT | KIND_UNION => 12 * count, // members
                15 | 19 => 12 * count,     // datasec, enum64
                6 | 13 => 8 * count,       // enum, func_proto
                kind => return Err(BtfError::UnknownKind { id: types.len(), kind }),
            };
            let detail = rest.get(12..12 + length).ok_or(BtfError::Malformed)?;
            types.push(Type { name, kind, packed_offsets: info >> 31 == 1, detail });
            rest = &rest[12 + length..];
        }
        Ok(Self { types, strings: section(16, 20)? })
    }

    /// The offset of a field in bytes, also when it lies in anonymous structs or unions inside.
    ///
    /// # Errors
    /// [`BtfError::NoSuchField`] when no struct of that name has it.
    pub fn offset_of(&self, structure: &str, field: &str) -> Result<usize, BtfError> {
        let named =
            self.types.iter().filter(|one| one.kind == KIND_STRUCT && self.is_named(one.name, structure));
        let bits = named.filter_map(|one| self.bit_offset_in(one, field)).next();
        bits.map(|bits| bits as usize / 8)
            .ok_or_else(|| BtfError::NoSuchField { structure: structure.to_owned(), field: field.to_owned() })
    }

    fn bit_offset_in(&self, structure: &Type<'_>, field: &str) -> Option<u32> {
        structure.detail.as_chunks::<12>().0.iter().find_map(|member| {
            let (name, member_type) = (word(member, 0).ok()?, word(member, 4).ok()?);
            let offset = word(member, 8).ok()? & if structure.packed_offsets { 0xff_ffff } else { u32::MAX };
            if self.is_named(name, field) {
                return Some(offset);
            }
            let inner = self.types.get(member_type as usize)?;
            let anonymous = self.is_named(name, "") && matches!(inner.kind, KIND_STRUCT | KIND_UNION);
            anonymous.then(|| self.bit_offset_in(inner, field)).flatten().map(|inside| offset + inside)
        })
    }

    fn is_named(&self, name: u32, wanted: &str) -> bool {
        let rest = self.strings.get(name as usize..).and_then(|rest| rest.strip_prefix(wanted.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(BtfError::Malformed)?;
    Ok(u32::from_ne_bytes(*found))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct rq { int lock; struct { int pad; int cpu; }; int bits:3 }`, hand-assembled.
    fn sample() -> Vec<u8> {
        let strings = b"\0rq\0lock\0pad\0cpu\0bits\0int\0";
        let structure = |vlen: u32, packed: u32| (packed << 31) | (KIND_STRUCT << 24) | vlen;
        let types: Vec<u32> = [
            vec![22, 1 << 24, 4, 0x20],                                             // 1: int
            vec![0, structure(2, 0), 8, 9, 1, 0, 13, 1, 32], // 2: anonymous { pad, cpu }
            vec![1, structure(3, 1), 16, 4, 1, 0, 0, 2, 32, 17, 1, (3 << 24) | 96], // 3: rq
        ]
        .concat();
        let header =
            [MAGIC | (1 << 16), 24, 0, types.len() as u32 * 4, types.len() as u32 * 4, strings.len() as u32];
        let words = header.into_iter().chain(types).flat_map(u32::to_ne_bytes);
        words.chain(strings.iter().copied()).collect()
    }

    #[test]
    fn fields_are_found_also_in_anonymous_structs_and_with_bit_fields() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.offset_of("rq", "lock"), Ok(0));
        assert_eq!(btf.offset_of("rq", "cpu"), Ok(8));
        assert_eq!(btf.offset_of("rq", "bits"), Ok(12));
        assert!(matches!(btf.offset_of("rq", "cp"), Err(BtfError::NoSuchField { .. })));
        assert!(matches!(btf.offset_of("int", "lock"), Err(BtfError::NoSuchField { .. })));
    }

    #[test]
    fn cut_off_bytes_are_an_error_not_a_panic() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(Btf::parse(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn the_running_kernel_is_read() {
        let Ok(bytes) = std::fs::read(KERNEL_BTF) else { return };
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.offset_of("list_head", "prev"), Ok(8));
        assert!(btf.offset_of("rq", "cpu").unwrap() > 0);
    }
}
