//! Writing files whole: to a temporary name, then renamed, so that nobody sees half of one.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Writes an executable file. Safe also while the old one is running.
pub fn write_executable(path: &Path, content: &[u8]) -> Result<()> {
    write_as(path, content, 0o755)
}

/// Writes a file.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    write_as(path, content, 0o644)
}

fn write_as(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    fs::write(&temporary, content)
        .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
