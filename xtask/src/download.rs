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

/// Fails unless `file` has this SHA-512, in hexadecimal.
pub fn check_sha512(step: &mut Step, file: &Path, expected: &str) -> Result<()> {
    let said = step.command(Command::new("sha512sum").arg(file), None)?;
    // A name with a backslash or a newline makes sha512sum begin its line with a backslash.
    let found = said.trim_start_matches('\\').split_whitespace().next().unwrap_or_default();
    if found != expected {
        bail!("{} is not what was released: its SHA-512 is {found}, not {expected}", file.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "abc", from FIPS 180-4's examples.
    const ABC: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                       2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn another_file_than_the_released_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let mut step = Step::start("Checking");
        std::fs::write(&file, "abc").unwrap();
        check_sha512(&mut step, &file, ABC).unwrap();
        std::fs::write(&file, "abd").unwrap();
        let error = check_sha512(&mut step, &file, ABC).unwrap_err().to_string();
        assert!(error.contains("is not what was released"), "{error}");
    }
}
