//! The line protocol, pure: bytes in, lines out. Follows RFC 854 for negotiation (every option is refused) and line
//! ends, so that telnet and plain TCP clients both work.

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const SE: u8 = 240;
const ERASE_LINE: u8 = 248;

/// What a piece of input came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A whole line, without its end.
    Line(String),
    /// A line longer than the limit; dropped.
    TooLong,
    /// A line that is not UTF-8; dropped.
    NotText,
    /// Bytes to send back: an option refused.
    Refuse([u8; 3]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Data,
    Command,
    Option(u8),
    Sub,
    SubCommand,
}

/// Splits the bytes of one connection into lines. Holds at most one line of at most the limit.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    line: Vec<u8>,
    limit: usize,
    overlong: bool,
    /// After a carriage return: its line is out, a following LF or NUL belongs to it.
    returned: bool,
}

impl Decoder {
    /// A decoder for lines of up to `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            state: State::Data,
            line: Vec::new(),
            limit,
            overlong: false,
            returned: false,
        }
    }

    /// Takes one byte; tells what it completed.
    pub(super) fn push(&mut self, byte: u8) -> Option<Read> {
        match (self.state, byte) {
            (State::Data, IAC) => {
                self.state = State::Command;
                None
            }
            (State::Data, _) => self.data(byte),
            (State::Command, DO | DONT | WILL | WONT) => {
                self.state = State::Option(byte);
                None
            }
            (State::Command, SB) => {
                self.state = State::Sub;
                None
            }
            (State::Command, _) => {
                self.state = State::Data;
                match byte {
                    // An escaped 255: a data byte, which no UTF-8 text holds.
                    IAC => self.keep(IAC),
                    ERASE_LINE => {
                        self.line.clear();
                        self.overlong = false;
                    }
                    _ => {}
                }
                None
            }
            (State::Option(verb), option) => {
                self.state = State::Data;
                match verb {
                    DO => Some(Read::Refuse([IAC, WONT, option])),
                    WILL => Some(Read::Refuse([IAC, DONT, option])),
                    _ => None,
                }
            }
            (State::Sub, IAC) => {
                self.state = State::SubCommand;
                None
            }
            (State::Sub, _) => None,
            (State::SubCommand, SE) => {
                self.state = State::Data;
                None
            }
            (State::SubCommand, _) => {
                self.state = State::Sub;
                None
            }
        }
    }

    fn data(&mut self, byte: u8) -> Option<Read> {
        let continues = std::mem::replace(&mut self.returned, byte == b'\r');
        match byte {
            b'\n' | 0 if continues => None,
            b'\r' | b'\n' => Some(self.line_end()),
            _ => {
                self.keep(byte);
                None
            }
        }
    }

    fn keep(&mut self, byte: u8) {
        if byte == 0 {
            return;
        }
        if self.line.len() < self.limit {
            self.line.push(byte);
        } else {
            self.overlong = true;
        }
    }

    fn line_end(&mut self) -> Read {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.overlong) {
            return Read::TooLong;
        }
        String::from_utf8(line).map_or(Read::NotText, Read::Line)
    }
}

/// Text as it goes over the wire: every kind of line break as CR LF, and one at the end.
pub(super) fn encode(text: &str) -> Vec<u8> {
    let unified = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut wire = unified.replace('\n', "\r\n").into_bytes();
    wire.extend_from_slice(b"\r\n");
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(limit: usize, pieces: &[&[u8]]) -> Vec<Read> {
        let mut decoder = Decoder::new(limit);
        pieces
            .concat()
            .iter()
            .filter_map(|byte| decoder.push(*byte))
            .collect()
    }

    fn line(text: &str) -> Read {
        Read::Line(text.to_owned())
    }

    #[test]
    fn input_and_what_it_comes_to() {
        let table: &[(&str, &[u8], Vec<Read>)] = &[
            ("telnet line", b"foo\r\n", vec![line("foo")]),
            ("netcat line", b"foo\n", vec![line("foo")]),
            ("CR NUL", b"foo\r\0bar\r\0", vec![line("foo"), line("bar")]),
            ("CR alone", b"foo\rbar\r", vec![line("foo"), line("bar")]),
            (
                "several",
                b"a\r\nb\nc\r\n",
                vec![line("a"), line("b"), line("c")],
            ),
            ("partial", b"no end", vec![]),
            ("empty", b"\r\n\n\r\n", vec![line(""), line(""), line("")]),
            ("utf-8", "Zoë ☃\n".as_bytes(), vec![line("Zoë ☃")]),
            (
                "not utf-8",
                b"\xc3\x28\nok\n",
                vec![Read::NotText, line("ok")],
            ),
            (
                "DO",
                b"\xff\xfd\x01hi\n",
                vec![Read::Refuse([255, 252, 1]), line("hi")],
            ),
            (
                "WILL",
                b"h\xff\xfb\x1fi\n",
                vec![Read::Refuse([255, 254, 31]), line("hi")],
            ),
            (
                "WONT, DONT",
                b"\xff\xfc\x01\xff\xfe\x01hi\n",
                vec![line("hi")],
            ),
            (
                "option LF",
                b"\xff\xfd\nhi\n",
                vec![Read::Refuse([255, 252, 10]), line("hi")],
            ),
            (
                "SB",
                b"\xff\xfa\x18\x00a\nb\xff\xff\xf0\xff\xf0hi\n",
                vec![line("hi")],
            ),
            ("NOP, AYT", b"\xff\xf1h\xff\xf6i\n", vec![line("hi")]),
            ("erase line", b"wrong\xff\xf8right\n", vec![line("right")]),
            ("IAC IAC", b"a\xff\xffb\n", vec![Read::NotText]),
            (
                "IAC after CR",
                b"a\r\xff\xfd\x01\nb\n",
                vec![line("a"), Read::Refuse([255, 252, 1]), line("b")],
            ),
        ];
        for (name, input, expected) in table {
            assert_eq!(&read(100, &[input]), expected, "{name}");
        }
    }

    #[test]
    fn a_line_at_the_limit_passes_and_a_longer_one_is_dropped_whole() {
        let reads = read(4, &[b"1234\r\n", b"12345678901\r\n", b"ok\n"]);
        assert_eq!(reads, [line("1234"), Read::TooLong, line("ok")]);
    }

    #[test]
    fn a_flood_without_line_end_holds_no_more_than_the_limit() {
        let mut decoder = Decoder::new(64);
        for _ in 0..1_000_000 {
            assert_eq!(decoder.push(b'x'), None);
        }
        for byte in [IAC, SB].into_iter().chain([b'y'; 100_000]) {
            assert_eq!(decoder.push(byte), None);
        }
        assert!(decoder.line.capacity() <= 128);
    }

    #[test]
    fn line_breaks_go_out_as_cr_lf() {
        for (text, wire) in [
            ("a\nb", "a\r\nb\r\n"),
            ("a\r\nb\rc", "a\r\nb\r\nc\r\n"),
            ("", "\r\n"),
            ("end\n", "end\r\n\r\n"),
        ] {
            assert_eq!(encode(text), wire.as_bytes());
        }
    }
}
