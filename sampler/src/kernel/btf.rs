//! The running kernel's BTF: where a structure's field lies, the value of an enumerator.
//!
//! aya parses BTF to relocate programs but shows no members, and the maintained parser crates are
//! under the LGPL or bind to libbpf; what is needed is a walk over a documented, stable format:
//! <https://docs.kernel.org/bpf/btf.html>.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where the kernel shows its own BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why a kernel's BTF could not be used.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The file is missing or unreadable.
    #[error(
        "cannot read the kernel's type information {path}: it needs a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y (all current distributions') and /sys mounted"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The contents are not BTF as it is documented.
    #[error("the kernel's type information is malformed at byte {at}: {what}")]
    Malformed {
        /// Offset in the file.
        at: usize,
        /// What was expected there.
        what: &'static str,
    },
    /// This kernel has no such field.
    #[error("this kernel has no {structure}.{path}: {hint}")]
    NoField {
        /// The structure.
        structure: String,
        /// The path of members.
        path: String,
        /// What is missing for want of it.
        hint: &'static str,
    },
    /// This kernel has no such enumerator.
    #[error("this kernel has no {name} in enum {of}: {hint}")]
    NoEnumerator {
        /// The enumerator.
        name: String,
        /// Its enum.
        of: String,
        /// What is missing for want of it.
        hint: &'static str,
    },
}

const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// A parsed BTF blob.
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Offset of each type's record; type 0 is void.
    types: Vec<usize>,
    /// Structures and enums by name, and whether a function of that name exists.
    named: HashMap<(u32, String), u32>,
}

impl Btf {
    /// The running kernel's.
    pub fn of_running_kernel() -> Result<Self, BtfError> {
        Self::read(Path::new(VMLINUX))
    }

    /// That of a file.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let data =
            std::fs::read(path).map_err(|source| BtfError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(data)
    }

    /// Parses a blob.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let word = |at| read_u32(&data, at);
        if word(0)? & 0xffff != 0xeb9f {
            return Err(BtfError::Malformed { at: 0, what: "the magic number of little-endian BTF" });
        }
        let header = word(4)? as usize;
        let begin = header.saturating_add(word(8)? as usize);
        let end = begin.saturating_add(word(12)? as usize);
        let strings = header.saturating_add(word(16)? as usize);
        if end > data.len() || strings > data.len() {
            return Err(BtfError::Malformed { at: 8, what: "sections inside the file" });
        }
        let mut btf = Self { data, strings, types: vec![0], named: HashMap::new() };
        let mut at = begin;
        while at < end {
            let (kind, count) = btf.kind(at)?;
            let id = btf.types.len() as u32;
            btf.types.push(at);
            if matches!(kind, KIND_STRUCT | KIND_ENUM | KIND_ENUM64 | KIND_FUNC) {
                let name = btf.string(read_u32(&btf.data, at)?)?.to_owned();
                if !name.is_empty() {
                    btf.named.entry((kind, name)).or_insert(id);
                }
            }
            at += 12 + trailer_bytes(kind, count);
        }
        Ok(btf)
    }

    /// Whether the kernel has a function of this name that a program could be attached to.
    pub fn has_function(&self, name: &str) -> bool {
        self.named.contains_key(&(KIND_FUNC, name.to_owned()))
    }

    /// Byte offset in `structure` of a member, or of a member of a member: `se.cfs_rq`. Unnamed members
    /// are looked into, arrays stand for their first element. `hint` says what is lost without the field.
    pub fn offset(&self, structure: &str, path: &str, hint: &'static str) -> Result<u32, BtfError> {
        let missing = || BtfError::NoField { structure: structure.to_owned(), path: path.to_owned(), hint };
        let mut id = *self.named.get(&(KIND_STRUCT, structure.to_owned())).ok_or_else(missing)?;
        let mut bits = 0;
        for name in path.split('.') {
            let (offset, member) = self.member(id, name)?.ok_or_else(missing)?;
            bits += offset;
            id = member;
        }
        if bits % 8 == 0 { Ok(bits / 8) } else { Err(missing()) }
    }

    /// Value of an enumerator.
    pub fn enumerator(&self, of: &str, name: &str, hint: &'static str) -> Result<u32, BtfError> {
        let missing = || BtfError::NoEnumerator { name: name.to_owned(), of: of.to_owned(), hint };
        let id = *self.named.get(&(KIND_ENUM, of.to_owned())).ok_or_else(missing)?;
        let at = self.types[id as usize];
        let (_, count) = self.kind(at)?;
        for i in 0..count {
            let entry = at + 12 + i * 8;
            if self.string(read_u32(&self.data, entry)?)? == name {
                return read_u32(&self.data, entry + 4);
            }
        }
        Err(missing())
    }

    /// Offset in bits and type of a member of a structure or union.
    fn member(&self, id: u32, name: &str) -> Result<Option<(u32, u32)>, BtfError> {
        let at = self.strip(id)?;
        let (kind, count) = self.kind(at)?;
        if !matches!(kind, KIND_STRUCT | KIND_UNION) {
            return Ok(None);
        }
        // With bit fields, the upper eight bits of an offset are the field's width.
        let bit_fields = read_u32(&self.data, at + 4)? >> 31 == 1;
        for i in 0..count {
            let entry = at + 12 + i * 12;
            let member = read_u32(&self.data, entry + 4)?;
            let mut offset = read_u32(&self.data, entry + 8)?;
            if bit_fields {
                offset &= 0xff_ffff;
            }
            let found = self.string(read_u32(&self.data, entry)?)?;
            if found == name {
                return Ok(Some((offset, member)));
            }
            if found.is_empty()
                && let Some((inner, member)) = self.member(member, name)?
            {
                return Ok(Some((offset + inner, member)));
            }
        }
        Ok(None)
    }

    /// The record of a type, without typedefs, qualifiers and array dimensions.
    fn strip(&self, mut id: u32) -> Result<usize, BtfError> {
        // The kernel allows no chain longer than 32.
        for _ in 0..32 {
            let at = *self
                .types
                .get(id as usize)
                .ok_or(BtfError::Malformed { at: 0, what: "the number of an existing type" })?;
            match self.kind(at)?.0 {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_TYPE_TAG => {
                    id = read_u32(&self.data, at + 8)?;
                }
                KIND_ARRAY => id = read_u32(&self.data, at + 12)?,
                _ => return Ok(at),
            }
        }
        Err(BtfError::Malformed { at: 0, what: "a chain of types that ends" })
    }

    /// Kind of the type record at an offset, and the number of its members.
    fn kind(&self, at: usize) -> Result<(u32, usize), BtfError> {
        let info = read_u32(&self.data, at + 4)?;
        Ok((info >> 24 & 0x1f, (info & 0xffff) as usize))
    }

    fn string(&self, offset: u32) -> Result<&str, BtfError> {
        let at = self.strings + offset as usize;
        let rest = self.data.get(at..).unwrap_or_default();
        rest.iter()
            .position(|&byte| byte == 0)
            .and_then(|end| std::str::from_utf8(&rest[..end]).ok())
            .ok_or(BtfError::Malformed { at, what: "a name" })
    }
}

/// Bytes that follow the twelve common ones of a type record.
fn trailer_bytes(kind: u32, count: usize) -> usize {
    match kind {
        1 | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => count * 12,
        KIND_ENUM | KIND_FUNC_PROTO => count * 8,
        _ => 0,
    }
}

fn read_u32(data: &[u8], at: usize) -> Result<u32, BtfError> {
    at.checked_add(4)
        .and_then(|end| data.get(at..end))
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_le_bytes)
        .ok_or(BtfError::Malformed { at, what: "four bytes" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `struct outer { int a; struct { int b[2]; }; const struct inner in; }; struct inner { int x:4, y:28; int z; };
    /// enum e { one = 1, five = 5 };`
    fn blob() -> Vec<u8> {
        let mut strings = vec![0u8];
        let mut name = |s: &str| {
            let at = strings.len() as u32;
            strings.extend_from_slice(s.as_bytes());
            strings.push(0);
            at
        };
        let record = |name: u32, kind: u32, flag: u32, count: u32, size: u32| {
            vec![name, flag << 31 | kind << 24 | count, size]
        };
        let mut words = Vec::new();
        words.extend(record(name("int"), 1, 0, 0, 4)); // 1
        words.push(32);
        words.extend(record(0, KIND_ARRAY, 0, 0, 0)); // 2: int[2]
        words.extend([1, 1, 2]);
        words.extend(record(0, KIND_STRUCT, 0, 1, 8)); // 3: unnamed
        words.extend([name("b"), 2, 0]);
        words.extend(record(name("inner"), KIND_STRUCT, 1, 3, 8)); // 4
        words.extend([name("x"), 1, 4 << 24, name("y"), 1, 28 << 24 | 4, name("z"), 1, 32]);
        words.extend(record(0, KIND_CONST, 0, 0, 4)); // 5
        words.extend(record(name("outer"), KIND_STRUCT, 0, 3, 20)); // 6
        words.extend([name("a"), 1, 0, 0, 3, 32, name("in"), 5, 96]);
        words.extend(record(name("e"), KIND_ENUM, 0, 2, 4)); // 7
        words.extend([name("one"), 1, name("five"), 5]);
        words.extend(record(name("go"), KIND_FUNC, 0, 0, 0)); // 8
        let types = words.len() as u32 * 4;
        let header = [0x0001_eb9f, 24, 0, types, types, strings.len() as u32];
        let mut blob: Vec<u8> = header.iter().chain(&words).flat_map(|word| word.to_le_bytes()).collect();
        blob.extend(strings);
        blob
    }

    #[test]
    fn members_are_found_through_members_unnamed_ones_and_qualifiers() {
        let btf = Btf::parse(blob()).unwrap();
        assert_eq!(btf.offset("outer", "a", "").unwrap(), 0);
        assert_eq!(btf.offset("outer", "b", "").unwrap(), 4);
        assert_eq!(btf.offset("outer", "in.z", "").unwrap(), 16);
        assert_eq!(btf.enumerator("e", "five", "").unwrap(), 5);
        assert!(btf.has_function("go") && !btf.has_function("stop"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let btf = Btf::parse(blob()).unwrap();
        let message = btf.offset("outer", "in.w", "waits cannot be measured").unwrap_err().to_string();
        assert_eq!(message, "this kernel has no outer.in.w: waits cannot be measured");
        assert!(matches!(btf.offset("outer", "in.y", ""), Err(BtfError::NoField { .. })), "inside a byte");
        assert!(matches!(btf.enumerator("e", "six", ""), Err(BtfError::NoEnumerator { .. })));
    }

    #[test]
    fn a_blob_cut_anywhere_is_an_error_or_lacks_something() {
        let whole = blob();
        for length in 0..whole.len() {
            if let Ok(btf) = Btf::parse(whole[..length].to_vec()) {
                assert!(btf.enumerator("e", "five", "").is_err() || !btf.has_function("go"));
            }
        }
    }

    proptest! {
        #[test]
        fn no_blob_panics(mut noise in prop::collection::vec(any::<(usize, u8)>(), 1..20)) {
            let mut blob = blob();
            let length = blob.len();
            for (at, byte) in noise.drain(..) {
                blob[at % length] = byte;
            }
            if let Ok(btf) = Btf::parse(blob) {
                let _ = btf.offset("outer", "in.z", "");
                let _ = btf.enumerator("e", "five", "");
            }
        }
    }
}
