//! The stories in `/tests/scenarios`: a cluster in a few lines of YAML, and below a line `---` what is decided and why, as
//! `loadline why` prints it.
//!
//! `UPDATE_EXPECT=1 cargo test -p controller --test scenarios` writes the lower halves anew. Read them before you
//! commit them.

mod story;

use std::path::{Path, PathBuf};
use std::{fs, io};

use controller::decide::check::check;
use controller::decide::pipeline::{Outcome, decide};
use expect_test::expect_file;
use story::{NOW, Story};

const SEPARATOR: &str = "\n---\n";

fn stories() -> io::Result<Vec<PathBuf>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    let mut files = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "txt"));
    files.sort();
    Ok(files)
}

/// What is decided, in words.
fn told(story: Story) -> String {
    let (observation, state) = story.cluster();
    let Outcome { plan, records, state, .. } = decide(&observation, state, NOW);
    if let Err(error) = check(&observation, &state, plan.clone(), NOW) {
        panic!("{error}\n{plan}");
    }
    let records = records.iter().map(|record| format!("{record}\n\n")).collect::<String>();
    format!("{records}{plan}\n")
}

#[test]
fn every_story_ends_as_it_is_written() {
    let stories = stories().unwrap();
    assert!(stories.len() >= 25, "only {} stories", stories.len());
    for path in stories {
        let text = fs::read_to_string(&path).unwrap();
        let input = text.split(SEPARATOR).next().unwrap();
        let sentence = input.strip_prefix("# ").and_then(|input| input.lines().next());
        assert!(
            sentence.is_some_and(|line| !line.is_empty()),
            "{}: begins with what happens",
            path.display()
        );
        let story: Story =
            serde_saphyr::from_str(input).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        expect_file![&path].assert_eq(&format!("{}{SEPARATOR}{}", input.trim_end(), told(story)));
    }
}
