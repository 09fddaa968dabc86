//! The two plain formats of files of cgroups: a key and a number on each line, and one number by itself.
//!
//! Keys that are not asked for are ignored, because kernels add some with nearly every release; whatever else is not
//! understood is refused: a wrong number would become a wrong size.

use super::file::{Malformed, Problem};

/// The field of a file that has but one.
pub(super) const VALUE: &str = "value";

/// A file with a key and a number on each line.
pub(super) struct Flat<'a> {
    file: &'static str,
    text: &'a str,
}

impl<'a> Flat<'a> {
    /// The content of a file. One that ends within a line was cut off, perhaps within a number: `field` is named then.
    pub(super) fn new(file: &'static str, field: &'static str, text: &'a str) -> Result<Self, Malformed> {
        let flat = Self { file, text };
        let whole = text.is_empty() || text.ends_with('\n');
        if whole { Ok(flat) } else { Err(flat.wrong(field, Problem::CutOff)) }
    }

    fn values(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.text.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix(' '))
    }

    /// Whether the key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values(key).next().is_some()
    }

    /// The number of a key that is there once.
    pub(super) fn number(&self, key: &'static str) -> Result<u64, Malformed> {
        let mut values = self.values(key);
        let value = values.next().ok_or_else(|| self.wrong(key, Problem::Missing))?;
        if values.next().is_some() {
            return Err(self.wrong(key, Problem::Twice));
        }
        number(value).map_err(|problem| self.wrong(key, problem))
    }

    /// A number of µs, in ns.
    pub(super) fn us_in_ns(&self, key: &'static str) -> Result<u64, Malformed> {
        us_in_ns(self.number(key)?).map_err(|problem| self.wrong(key, problem))
    }

    fn wrong(&self, field: &'static str, problem: Problem) -> Malformed {
        Malformed { file: self.file, field, problem }
    }
}

/// The only line of a file.
pub(super) fn line<'a>(file: &'static str, field: &'static str, text: &'a str) -> Result<&'a str, Malformed> {
    text.strip_suffix('\n').ok_or(Malformed { file, field, problem: Problem::CutOff })
}

/// The only number of a file.
pub(super) fn single(file: &'static str, text: &str) -> Result<u64, Malformed> {
    number(line(file, VALUE, text)?).map_err(|problem| Malformed { file, field: VALUE, problem })
}

/// Digits and nothing else: `u64::from_str` would also take a plus sign.
pub(super) fn number(text: &str) -> Result<u64, Problem> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| Problem::not_a_number(text))
}

/// µs in ns.
pub(super) fn us_in_ns(us: u64) -> Result<u64, Problem> {
    us.checked_mul(1_000).ok_or_else(|| Problem::not_a_number(&us.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = "a.file";

    fn wrong<T: std::fmt::Debug>(result: Result<T, Malformed>) -> (&'static str, Problem) {
        let Malformed { file, field, problem } = result.unwrap_err();
        assert_eq!(file, FILE);
        (field, problem)
    }

    fn of(text: &str) -> Flat<'_> {
        Flat::new(FILE, "first", text).unwrap()
    }

    #[test]
    fn a_key_is_a_whole_word() {
        let flat = of("xnumber 1\nnumbers 2\nnumber 3\n");
        assert_eq!(flat.number("number"), Ok(3));
        assert!(flat.has("numbers") && !flat.has("num"));
        assert_eq!(wrong(flat.number("num")), ("num", Problem::Missing));
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused() {
        assert_eq!(wrong(of("a 1\na 1\n").number("a")), ("a", Problem::Twice));
    }

    #[test]
    fn a_file_that_ends_within_a_line_was_cut_off() {
        assert_eq!(wrong(Flat::new(FILE, "first", "a 12").map(|_| ())), ("first", Problem::CutOff));
        assert_eq!(wrong(single(FILE, "12")), (VALUE, Problem::CutOff));
        assert_eq!(wrong(single(FILE, "")), (VALUE, Problem::CutOff));
        assert_eq!(single(FILE, "12\n"), Ok(12));
    }

    #[test]
    fn only_digits_are_a_number_and_all_of_them_count() {
        let too_much = u64::MAX.to_string() + "0";
        for text in ["", "+1", "-1", " 1", "1 ", "1e3", "0x1", "١", &too_much] {
            assert_eq!(number(text), Err(Problem::not_a_number(text)), "{text}");
        }
        let shown = Problem::NotANumber { value: "9".repeat(32) };
        assert_eq!(number(&"9".repeat(10_000)), Err(shown));
        assert_eq!(number(&u64::MAX.to_string()), Ok(u64::MAX));
        assert_eq!(of("t 7\n").us_in_ns("t"), Ok(7_000));
        let too_long = u64::MAX.to_string();
        assert_eq!(
            wrong(of(&format!("t {too_long}\n")).us_in_ns("t")),
            ("t", Problem::not_a_number(&too_long))
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*|[a-z_]{0,12} [0-9-]{0,25}\n") {
            if let Ok(flat) = Flat::new(FILE, "first", &text) {
                let _ = flat.number("a");
                let _ = flat.us_in_ns("");
            }
            let _ = single(FILE, &text);
        }

        #[test]
        fn a_number_is_read_as_it_was_written(value: u64, before in "([a-f]{1,9} [0-9]{1,9}\n){0,5}") {
            prop_assert_eq!(of(&format!("{before}x {value}\n")).number("x"), Ok(value));
            prop_assert_eq!(single(FILE, &format!("{value}\n")), Ok(value));
        }
    }
}
