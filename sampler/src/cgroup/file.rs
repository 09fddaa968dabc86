//! One file of a cgroup, from opening to parsed, and every way in which that can fail.
//!
//! A file costs three system calls: open, read, close. The kernel writes a file of a cgroup whole into the first read
//! that has room for it, so a read that does not fill its buffer was the last. No descriptor is kept: cgroups come and
//! go by the hundred a second, and an open file of one that is gone keeps it from being freed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::is_gone;

/// Room for any file that is read here.
const ROOM_BYTES: usize = 4 << 10;
/// No file of a cgroup is longer.
const LONGEST_BYTES: usize = 64 << 10;

/// Why a file of a cgroup could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The cgroup was removed.
    #[error("{}: the cgroup was removed", path.display())]
    Vanished {
        /// The file, or the cgroup's directory.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file has another content than the kernel writes.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Malformed,
    },
}

/// What is wrong with the content of a file: which one, which field, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {field}: {problem}")]
pub struct Malformed {
    /// Name of the file.
    pub file: &'static str,
    /// Name of the field.
    pub field: &'static str,
    /// How it is wrong.
    pub problem: Problem,
}

/// How a field is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not there.
    #[error("missing")]
    Missing,
    /// There more than once.
    #[error("there twice")]
    Twice,
    /// Not the number that it should be.
    #[error("{value:?} is not a number in its range")]
    NotANumber {
        /// What is there, up to 32 characters.
        value: String,
    },
    /// The file ends within a line.
    #[error("the file was cut off")]
    CutOff,
}

impl Problem {
    /// That this is no number that the field can have.
    pub(super) fn not_a_number(text: &str) -> Self {
        Self::NotANumber { value: text.chars().take(32).collect() }
    }
}

/// Reads a file of a cgroup. One that is not there is that of a cgroup which was removed.
pub(super) fn read<T>(path: &Path, parse: impl FnOnce(&str) -> Result<T, Malformed>) -> Result<T, FileError> {
    read_if_there(path, parse)?.ok_or_else(|| FileError::Vanished { path: path.to_owned() })
}

/// Reads a file that not every cgroup has; `None` where there is none, and of a cgroup which was removed.
pub(super) fn read_if_there<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, Malformed>,
) -> Result<Option<T>, FileError> {
    match content(path) {
        Ok(text) => {
            parse(&text).map(Some).map_err(|source| FileError::Malformed { path: path.to_owned(), source })
        }
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(FileError::Io { path: path.to_owned(), source }),
    }
}

fn content(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; ROOM_BYTES];
    let mut length = 0;
    loop {
        length += file.read(&mut bytes[length..])?;
        if length < bytes.len() {
            break;
        }
        if length >= LONGEST_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than any file of a cgroup"));
        }
        bytes.resize(2 * length, 0);
    }
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use std::fs;

    fn whole(text: &str) -> Result<String, Malformed> {
        Ok(text.to_owned())
    }

    #[test]
    fn a_file_is_read_to_its_end_however_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for length in [0, 1, ROOM_BYTES - 1, ROOM_BYTES, ROOM_BYTES + 1, LONGEST_BYTES - 1] {
            fs::write(&path, "x".repeat(length)).unwrap();
            assert_eq!(read(&path, whole).unwrap().len(), length);
        }
    }

    #[test]
    fn what_cannot_be_a_file_of_a_cgroup_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let refused = || {
            let FileError::Io { path, source } = read_if_there(&path, whole).unwrap_err() else { panic!() };
            assert!(path.ends_with("file"));
            source.kind()
        };
        assert!(matches!(read_if_there(&path, whole), Ok(None)));
        assert!(matches!(read(&path, whole), Err(FileError::Vanished { path: p }) if p == path));
        fs::write(&path, "x".repeat(LONGEST_BYTES)).unwrap();
        assert_eq!(refused(), io::ErrorKind::FileTooLarge);
        fs::write(&path, b"\xff\n").unwrap();
        assert_eq!(refused(), io::ErrorKind::InvalidData);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(refused(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn a_file_without_an_end_is_not_read_for_ever() {
        let error = read(Path::new("/dev/zero"), whole).unwrap_err();
        assert!(error.to_string().starts_with("/dev/zero: longer than any file"), "{error}");
    }

    #[test]
    fn a_removed_cgroup_is_gone_whether_it_was_open_or_not() {
        assert!(is_gone(&io::Error::from_raw_os_error(Errno::ENOENT as i32)));
        assert!(is_gone(&io::Error::from_raw_os_error(Errno::ENODEV as i32)));
        assert!(!is_gone(&io::Error::from_raw_os_error(Errno::EACCES as i32)));
        assert!(!is_gone(&io::Error::other("anything else")));
    }
}
