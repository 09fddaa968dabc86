//! What a guest says on its console: output for people, and lines for us that start with `loadline-guest: `.
//!
//! `up` comes first, `exit N` last; `file NAME BEGIN` and `file NAME END` stand around a text file. Output between
//! `up` and `exit` is passed on as it comes, unfinished lines too, so that a live view works. There is one console for
//! both streams: what was said on the standard error comes as `note TEXT`. `left NAMES` is for whoever reads the log.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

const MARK: &[u8] = b"loadline-guest: ";

/// Takes the console's bytes apart.
#[derive(Debug, Default)]
pub struct Parser {
    /// Bytes that may yet turn out to be a mark, or a line for us without its end.
    held: Vec<u8>,
    /// The guest has spoken.
    pub up: bool,
    /// The guest's exit code, once said.
    pub exit: Option<i32>,
    /// Files that came whole.
    pub files: BTreeMap<String, Vec<u8>>,
    file: Option<(String, Vec<u8>)>,
}

/// What a guest has said for people.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// On its standard output.
    pub output: Vec<u8>,
    /// On its standard error, line by line.
    pub notes: Vec<String>,
}

impl Said {
    /// Nothing.
    pub fn is_empty(&self) -> bool {
        self.output.is_empty() && self.notes.is_empty()
    }

    /// Says it on our own standard output and error, at once: a live view has no line ends to wait for.
    pub fn pass_on(&self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&self.output)?;
        stdout.flush()?;
        self.notes.iter().for_each(|note| eprintln!("{note}"));
        Ok(())
    }
}

impl Parser {
    /// Takes bytes from the console and returns what the guest says for people.
    pub fn push(&mut self, bytes: &[u8]) -> Said {
        let mut said = Said::default();
        for &byte in bytes {
            self.held.push(byte);
            if self.held.starts_with(MARK) {
                if byte == b'\n' {
                    let line = std::mem::take(&mut self.held);
                    said.notes.extend(self.line(String::from_utf8_lossy(&line[MARK.len()..]).trim()));
                }
                continue;
            }
            // The terminal of the guest writes a carriage return before each line feed: one of them is held back
            // until it is known what follows.
            while !self.held.is_empty() && !MARK.starts_with(&self.held) && self.held != b"\r" {
                let first = self.held.remove(0);
                let line_end = first == b'\r' && self.held.first() == Some(&b'\n');
                if !line_end {
                    self.pass(first, &mut said.output);
                }
            }
        }
        said
    }

    fn pass(&mut self, byte: u8, output: &mut Vec<u8>) {
        match &mut self.file {
            Some((_, content)) => content.push(byte),
            None if self.up && self.exit.is_none() => output.push(byte),
            None => {}
        }
    }

    /// Takes a line for us, and returns the note that it is.
    fn line(&mut self, line: &str) -> Option<String> {
        if let Some(note) = line.strip_prefix("note ") {
            return Some(note.to_owned());
        }
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["up"] => self.up = true,
            ["exit", code] => self.exit = code.parse().ok(),
            ["file", name, "BEGIN"] => self.file = Some((name.to_owned(), Vec::new())),
            ["file", _, "END"] => {
                if let Some((name, content)) = self.file.take() {
                    self.files.insert(name, content);
                }
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(console: &[u8], chunk: usize) -> (Parser, String, Vec<String>) {
        let mut parser = Parser::default();
        let mut all = Said::default();
        for bytes in console.chunks(chunk) {
            let said = parser.push(bytes);
            all.output.extend(said.output);
            all.notes.extend(said.notes);
        }
        (parser, String::from_utf8(all.output).unwrap(), all.notes)
    }

    #[test]
    fn output_is_what_stands_between_up_and_exit() {
        let console = b"SeaBIOS\r\n\x1b[2Jloadline-guest: up\r\nhello\r\nlload\r\nloadline-guest: file b.json BEGIN\r\n\
            [1,\r\nloadline-guest: note error:  two\r\n2]\r\nloadline-guest: file b.json END\r\nbloadline-guest: note aside\r\nye\r\nloadline-guest: exit 3\r\nreboot: Power down\r\n";
        for chunk in [1, 2, 7, console.len()] {
            let (parser, output, notes) = parse(console, chunk);
            assert_eq!(output, "hello\nlload\nbye\n");
            assert_eq!(notes, ["error:  two", "aside"]);
            assert_eq!(parser.exit, Some(3));
            assert_eq!(parser.files["b.json"], b"[1,\n2]\n");
        }
    }

    #[test]
    fn unfinished_lines_come_at_once() {
        let mut parser = Parser::default();
        parser.push(b"loadline-guest: up\n");
        assert_eq!(parser.push(b"12 %").output, b"12 %");
        assert_eq!(parser.push(b"\r").output, b"");
        assert_eq!(parser.push(b"13 %").output, b"\r13 %");
        // A mark counts also where the guest left a line unfinished.
        assert!(parser.push(b"loadline-guest: exit 0\n").is_empty());
        assert_eq!(parser.exit, Some(0));
    }

    #[test]
    fn a_guest_that_never_spoke_has_no_output() {
        let (parser, output, notes) = parse(b"Kernel panic - not syncing\r\n", 3);
        assert!(!parser.up && parser.exit.is_none() && output.is_empty() && notes.is_empty());
    }
}
