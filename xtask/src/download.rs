//! Released files from the open internet.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Result, bail};

use crate::step::Step;

/// Downloads `url` to the file `to` as part of a step. A network that does not answer is an error after seconds.
pub fn https(step: &mut Step, url: &str, to: &Path, limit: Duration) -> Result<()> {
    let mut curl = Command::new("curl");
    curl.args(["--proto", "=https", "--tlsv1.2", "-sSfL", "--connect-timeout", "10"]);
    step.command(curl.arg("-o").arg(to).arg(url), Some(limit))?;
    Ok(())
}

/// How a file's content is made into a digest.
#[derive(Clone, Copy, Debug)]
pub enum Digest {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Digest {
    fn name_and_tool(self) -> (&'static str, &'static str) {
        match self {
            Self::Sha256 => ("SHA-256", "sha256sum"),
            Self::Sha512 => ("SHA-512", "sha512sum"),
        }
    }
}

/// Fails unless `file` has this digest, in hexadecimal.
pub fn check(step: &mut Step, file: &Path, digest: Digest, expected: &str) -> Result<()> {
    let (name, tool) = digest.name_and_tool();
    let said = step.command(Command::new(tool).arg(file), None)?;
    // A name with a backslash or a newline makes the tool begin its line with a backslash.
    let found = said.trim_start_matches('\\').split_whitespace().next().unwrap_or_default();
    if found != expected {
        bail!("{} is not what was released: its {name} is {found}, not {expected}", file.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "abc", from FIPS 180-4's examples.
    const ABC_256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const ABC_512: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                       2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn another_file_than_the_released_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let mut step = Step::start("Checking");
        for (digest, abc) in [(Digest::Sha256, ABC_256), (Digest::Sha512, ABC_512)] {
            std::fs::write(&file, "abc").unwrap();
            check(&mut step, &file, digest, abc).unwrap();
            std::fs::write(&file, "abd").unwrap();
            let error = check(&mut step, &file, digest, abc).unwrap_err().to_string();
            assert!(error.contains("is not what was released"), "{error}");
        }
    }
}
