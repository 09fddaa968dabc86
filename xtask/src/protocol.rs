//! What a guest says on its console: output for people, and lines for us that start with `loadline-guest: `.
//!
//! `up` comes first, `exit N` last; `file NAME BEGIN` and `file NAME END` stand around a text file. Output between
//! `up` and `exit` is passed on as it comes, unfinished lines too, so that a live view works.

use std::collections::BTreeMap;

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

impl Parser {
    /// Takes bytes from the console and returns those that are output of the guest.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        for &byte in bytes {
            self.held.push(byte);
            if self.held.starts_with(MARK) {
                if byte == b'\n' {
                    let line = std::mem::take(&mut self.held);
                    self.line(String::from_utf8_lossy(&line[MARK.len()..]).trim());
                }
                continue;
            }
            // The terminal of the guest writes a carriage return before each line feed: one of them is held back
            // until it is known what follows.
            while !self.held.is_empty() && !MARK.starts_with(&self.held) && self.held != b"\r" {
                let first = self.held.remove(0);
                let line_end = first == b'\r' && self.held.first() == Some(&b'\n');
                if !line_end {
                    self.pass(first, &mut output);
                }
            }
        }
        output
    }

    fn pass(&mut self, byte: u8, output: &mut Vec<u8>) {
        match &mut self.file {
            Some((_, content)) => content.push(byte),
            None if self.up && self.exit.is_none() => output.push(byte),
            None => {}
        }
    }

    fn line(&mut self, line: &str) {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(console: &[u8], chunk: usize) -> (Parser, String) {
        let mut parser = Parser::default();
        let mut output = Vec::new();
        for bytes in console.chunks(chunk) {
            output.extend(parser.push(bytes));
        }
        (parser, String::from_utf8(output).unwrap())
    }

    #[test]
    fn output_is_what_stands_between_up_and_exit() {
        let console = b"SeaBIOS\r\n\x1b[2Jloadline-guest: up\r\nhello\r\nlload\r\nloadline-guest: file b.json BEGIN\r\n\
            [1,\r\n2]\r\nloadline-guest: file b.json END\r\nbye\r\nloadline-guest: exit 3\r\nreboot: Power down\r\n";
        for chunk in [1, 2, 7, console.len()] {
            let (parser, output) = parse(console, chunk);
            assert_eq!(output, "hello\nlload\nbye\n");
            assert_eq!(parser.exit, Some(3));
            assert_eq!(parser.files["b.json"], b"[1,\n2]\n");
        }
    }

    #[test]
    fn unfinished_lines_come_at_once() {
        let mut parser = Parser::default();
        parser.push(b"loadline-guest: up\n");
        assert_eq!(parser.push(b"12 %"), b"12 %");
        assert_eq!(parser.push(b"\r"), b"");
        assert_eq!(parser.push(b"13 %"), b"\r13 %");
        // A mark counts also where the guest left a line unfinished.
        assert_eq!(parser.push(b"loadline-guest: exit 0\n"), b"");
        assert_eq!(parser.exit, Some(0));
    }

    #[test]
    fn a_guest_that_never_spoke_has_no_output() {
        let (parser, output) = parse(b"Kernel panic - not syncing\r\n", 3);
        assert!(!parser.up && parser.exit.is_none() && output.is_empty());
    }
}
