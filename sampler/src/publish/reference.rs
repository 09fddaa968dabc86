//! The reference of all metrics, for the README.

use super::families::{FAMILIES, Of};

/// All metrics as two Markdown tables.
pub fn markdown() -> String {
    let of_containers = |wanted| FAMILIES.iter().filter(move |family| family.of.is_of_containers() == wanted);
    let mut text = String::from("| of each container | type | more labels | |\n|---|---|---|---|\n");
    for family in of_containers(true) {
        text += &row(family.name, &family.of, family.help);
    }
    text += "\n| of the sampler | type | labels | |\n|---|---|---|---|\n";
    for family in of_containers(false) {
        text += &row(family.name, &family.of, family.help);
    }
    text
}

fn row(name: &str, of: &Of, help: &str) -> String {
    let labels: Vec<_> = of.labels().iter().map(|label| format!("`{label}`")).collect();
    format!("| `{name}` | {} | {} | {help} |\n", of.kind(), labels.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- metrics: generated -->\n";
    const END: &str = "<!-- end of metrics -->\n";

    /// `LOADLINE_UPDATE=1 cargo test -p sampler the_reference` writes it anew.
    #[test]
    fn the_reference_in_the_readme_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let readme = std::fs::read_to_string(path).unwrap();
        let (before, rest) = readme.split_once(BEGIN).expect("a mark where the metrics begin");
        let (written, after) = rest.split_once(END).expect("a mark where they end");
        let current = markdown();
        if std::env::var_os("LOADLINE_UPDATE").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}{current}{END}{after}")).unwrap();
        } else {
            assert_eq!(written, current, "run LOADLINE_UPDATE=1 cargo test -p sampler the_reference");
        }
    }
}
