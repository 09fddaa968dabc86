//! `decide` is a function of its arguments: its sources name nothing that knows more than that.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// What would let a decision depend on more than its arguments.
const FORBIDDEN: [&str; 15] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "Instant",
    "SystemTime",
    "rand::",
    "tokio",
    "async",
    "kube::",
    "k8s_openapi",
    "HashMap",
    "unsafe",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// Code without comments and without the tests below it.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines.map(|line| line.split("//").next().unwrap_or_default())
}

#[test]
fn decisions_know_no_clock_randomness_environment_client_or_order_of_hashes() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/decide"), &mut files).unwrap();
    assert!(files.len() > 10, "only {} sources were found", files.len());
    for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
        let text = fs::read_to_string(file).unwrap();
        for line in code(&text) {
            for word in FORBIDDEN {
                assert!(!line.contains(word), "{}: `{word}` in: {line}", file.display());
            }
        }
    }
}
