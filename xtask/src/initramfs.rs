//! The root file system of a virtual machine: a cpio archive ("newc"), which the kernel unpacks into memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// What is at a path of the guest.
enum Node {
    File { mode: u32, content: Content },
    Link(String),
    Directory,
    Console,
}

enum Content {
    Here(Vec<u8>),
    Host(PathBuf),
}

/// An archive in the making. Paths are absolute; directories above them are made.
pub struct Initramfs {
    nodes: BTreeMap<String, Node>,
}

impl Initramfs {
    /// An empty root with the console, on which the kernel opens init's standard streams.
    pub fn new() -> Self {
        let mut archive = Self { nodes: BTreeMap::new() };
        archive.put("/dev/console", Node::Console);
        archive
    }

    /// A program made of bytes.
    pub fn program(&mut self, path: &str, content: &[u8]) {
        self.put(path, Node::File { mode: 0o755, content: Content::Here(content.to_vec()) });
    }

    /// A program from the host.
    pub fn host_program(&mut self, path: &str, from: &Path) {
        self.put(path, Node::File { mode: 0o755, content: Content::Host(from.to_owned()) });
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.put(path, Node::Link(to.to_owned()));
    }

    /// An empty directory.
    pub fn directory(&mut self, path: &str) {
        self.put(path, Node::Directory);
    }

    fn put(&mut self, path: &str, node: Node) {
        self.nodes.insert(path.trim_start_matches('/').to_owned(), node);
    }

    /// The archive.
    pub fn build(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut number = 0;
        let mut entry = |name: &str, mode: u32, device: (u32, u32), content: &[u8]| -> Result<()> {
            number += 1;
            write_entry(&mut out, number, name, mode, device, content)
        };
        let mut made = BTreeSet::new();
        for (path, node) in &self.nodes {
            for (end, _) in path.match_indices('/') {
                let above = &path[..end];
                if made.insert(above.to_owned()) {
                    entry(above, 0o040_755, (0, 0), &[])?;
                }
            }
            match node {
                Node::Directory => {
                    if made.insert(path.clone()) {
                        entry(path, 0o040_755, (0, 0), &[])?;
                    }
                }
                Node::Link(to) => entry(path, 0o120_777, (0, 0), to.as_bytes())?,
                Node::Console => entry(path, 0o020_600, (5, 1), &[])?,
                Node::File { mode, content } => {
                    let mode = 0o100_000 | mode;
                    match content {
                        Content::Here(bytes) => entry(path, mode, (0, 0), bytes)?,
                        Content::Host(from) => {
                            let bytes =
                                fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
                            entry(path, mode, (0, 0), &bytes)?;
                        }
                    }
                }
            }
        }
        entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(out)
    }
}

/// One entry: a header of hexadecimal fields, the name and the content, each padded to four bytes.
fn write_entry(
    out: &mut Vec<u8>,
    number: u32,
    name: &str,
    mode: u32,
    device: (u32, u32),
    content: &[u8],
) -> Result<()> {
    let Ok(size) = u32::try_from(content.len()) else {
        bail!("{name} is too large for the archive format");
    };
    let name_size = u32::try_from(name.len() + 1).context("a path is too long")?;
    let links = 1;
    out.extend_from_slice(b"070701");
    // Number, mode, owner, group, links, time, size, device of the file system, device of the node, name, checksum.
    for field in [number, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0] {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
    Ok(())
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, mode and content of every entry, as the kernel's `init/initramfs.c` reads them.
    fn read_back(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let whole = archive.len();
        loop {
            let (header, _) = archive.split_at(110);
            assert_eq!(&header[..6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&header[6 + 8 * index..14 + 8 * index]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = String::from_utf8(archive[110..110 + name_size - 1].to_vec()).unwrap();
            let start = (110 + name_size).next_multiple_of(4);
            let content = archive[start..start + size].to_vec();
            archive = &archive[(start + size).next_multiple_of(4)..];
            assert_eq!((whole - archive.len()) % 4, 0);
            if name == "TRAILER!!!" {
                assert!(archive.is_empty());
                return entries;
            }
            entries.push((name, u32::try_from(mode).unwrap(), content));
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let host = tempfile::NamedTempFile::new().unwrap();
        fs::write(host.path(), b"from the host").unwrap();
        let mut archive = Initramfs::new();
        archive.program("/init", b"#!/bin/sh\n");
        archive.host_program("/usr/bin/tool", host.path());
        archive.link("/bin", "usr/bin");
        archive.directory("/usr/share");
        let entries = read_back(&archive.build().unwrap());
        let expected: Vec<(String, u32, Vec<u8>)> = [
            ("bin", 0o120_777, &b"usr/bin"[..]),
            ("dev", 0o040_755, b""),
            ("dev/console", 0o020_600, b""),
            ("init", 0o100_755, b"#!/bin/sh\n"),
            ("usr", 0o040_755, b""),
            ("usr/bin", 0o040_755, b""),
            ("usr/bin/tool", 0o100_755, b"from the host"),
            ("usr/share", 0o040_755, b""),
        ]
        .into_iter()
        .map(|(name, mode, content)| (name.to_owned(), mode, content.to_vec()))
        .collect();
        assert_eq!(entries, expected);
    }

    #[test]
    fn a_missing_host_file_is_named() {
        let mut archive = Initramfs::new();
        archive.host_program("/init", Path::new("/does/not/exist"));
        assert!(format!("{:#}", archive.build().unwrap_err()).contains("/does/not/exist"));
    }
}
