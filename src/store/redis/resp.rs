//! RESP, the protocol of Redis and Valkey: requests as bytes, and answers from them.
//!
//! After the specification of RESP2 and RESP3 in the documentation of Redis.

use bytes::{Buf, Bytes, BytesMut};

/// The longest text that a server may hold.
const LONGEST_TEXT: usize = 512 << 20;

/// The most items of one array. None of our answers has a thousandth.
const MOST_ITEMS: usize = 1 << 24;

/// How deep arrays may stand in one another.
const DEEPEST: usize = 16;

/// Commands on their way to a server.
#[derive(Debug, Default)]
pub(super) struct Request {
    bytes: Vec<u8>,
    commands: usize,
}

impl Request {
    /// With room for so many commands on one key each.
    pub(super) fn with_capacity(commands: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(commands * 80),
            commands: 0,
        }
    }

    /// How many commands it holds, and so how many answers there will be.
    pub(super) fn len(&self) -> usize {
        self.commands
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A command of words that are all known.
    pub(super) fn command<const N: usize>(&mut self, words: [&[u8]; N]) {
        self.begin(N);
        for word in words {
            self.word(word);
        }
    }

    /// Begins a command of so many words, its name included.
    pub(super) fn begin(&mut self, words: usize) {
        self.commands += 1;
        self.head(b'*', words as u64);
    }

    pub(super) fn word(&mut self, word: &[u8]) {
        self.head(b'$', word.len() as u64);
        self.bytes.extend_from_slice(word);
        self.bytes.extend_from_slice(b"\r\n");
    }

    pub(super) fn number(&mut self, number: u64) {
        let (digits, at) = decimal(number);
        self.word(&digits[at..]);
    }

    fn head(&mut self, kind: u8, number: u64) {
        // Almost all of them.
        if number < 10 {
            let head = [kind, b'0' + number as u8, b'\r', b'\n'];
            return self.bytes.extend_from_slice(&head);
        }
        if number < 100 {
            let (tens, ones) = ((number / 10) as u8, (number % 10) as u8);
            let head = [kind, b'0' + tens, b'0' + ones, b'\r', b'\n'];
            return self.bytes.extend_from_slice(&head);
        }
        let (digits, at) = decimal(number);
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&digits[at..]);
        self.bytes.extend_from_slice(b"\r\n");
    }
}

/// The digits of a number, and where they begin.
fn decimal(mut number: u64) -> ([u8; 20], usize) {
    let (mut digits, mut at) = ([b'0'; 20], 20);
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return (digits, at);
        }
    }
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Nil,
    Int(i64),
    /// A text of any kind.
    Text(Bytes),
    /// A list, a set, or the keys and values of a map in turn.
    Array(Vec<Answer>),
    Error(Refusal),
}

/// An error that a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal(Box<str>);

impl Refusal {
    pub(super) fn new(text: &[u8]) -> Self {
        Self(String::from_utf8_lossy(text).into())
    }

    /// The word that tells what kind of error it is.
    pub(super) fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }

    /// What follows that word.
    pub(super) fn details(&self) -> Option<&str> {
        self.0.split_once(' ').map(|(_, details)| details)
    }

    /// All of it.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

/// What comes from a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Answer(Answer),
    /// What it has to tell that nobody asked for.
    News(Vec<Answer>),
}

/// Why no frame could be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is not there yet: not before there are so many bytes.
    Until(usize),
    /// It is not RESP.
    Garbage,
}

/// Takes the frame at the front of what was received. Texts are parts of it and not copies.
pub(super) fn take(received: &mut BytesMut) -> Result<Frame, Unread> {
    if received.first() == Some(&b'$') {
        return Ok(Frame::Answer(take_text(received)?));
    }
    let end = end(received, 0, 0)?;
    let frame = received.split_to(end).freeze();
    match build(&frame, &mut 0)? {
        Answer::Array(news) if frame[0] == b'>' => Ok(Frame::News(news)),
        answer => Ok(Frame::Answer(answer)),
    }
}

/// Most of what we are answered: read once, and without the count of one more owner.
fn take_text(received: &mut BytesMut) -> Result<Answer, Unread> {
    let line = Line::at(received, 0)?;
    let length = line.length(received, LONGEST_TEXT)?;
    let end = text_end(received, line.end, length)?;
    let frame = received.split_to(end).freeze();
    Ok(match length {
        Some(length) => Answer::Text(part(frame, line.end, length)),
        None => Answer::Nil,
    })
}

/// Where a text ends that begins at `start`.
fn text_end(bytes: &[u8], start: usize, length: Option<usize>) -> Result<usize, Unread> {
    let Some(length) = length else {
        return Ok(start);
    };
    let end = start + length + 2;
    match bytes.get(end - 2..end) {
        Some(b"\r\n") => Ok(end),
        Some(_) => Err(Unread::Garbage),
        None => Err(Unread::Until(end)),
    }
}

/// The first line of a value, without the letter that tells its kind.
struct Line {
    kind: u8,
    start: usize,
    stop: usize,
    /// Where what follows begins.
    end: usize,
}

impl Line {
    fn at(bytes: &[u8], at: usize) -> Result<Self, Unread> {
        let line = bytes.get(at..).unwrap_or_default();
        let Some(length) = line.iter().position(|byte| *byte == b'\n') else {
            return Err(match line.len() > LONGEST_TEXT {
                true => Unread::Garbage,
                false => Unread::Until(bytes.len().max(at) + 1),
            });
        };
        if length < 2 || line[length - 1] != b'\r' {
            return Err(Unread::Garbage);
        }
        Ok(Self {
            kind: line[0],
            start: at + 1,
            stop: at + length - 1,
            end: at + length + 1,
        })
    }

    fn number(&self, bytes: &[u8]) -> Result<i64, Unread> {
        let text = &bytes[self.start..self.stop];
        let (digits, sign) = match text {
            [b'-', digits @ ..] => (digits, -1),
            [b'+', digits @ ..] | digits => (digits, 1),
        };
        if digits.is_empty() {
            return Err(Unread::Garbage);
        }
        let number = digits.iter().try_fold(0_i64, |number, digit| {
            let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
            number.checked_mul(10)?.checked_add(sign * digit)
        });
        number.ok_or(Unread::Garbage)
    }

    /// The number as a length; none for what is nothing.
    fn length(&self, bytes: &[u8], most: usize) -> Result<Option<usize>, Unread> {
        match self.number(bytes)? {
            -1 => Ok(None),
            number => match usize::try_from(number) {
                Ok(length) if length <= most => Ok(Some(length)),
                _ => Err(Unread::Garbage),
            },
        }
    }

    /// How many values follow that are parts of this one; none for what is nothing.
    fn items(&self, bytes: &[u8]) -> Result<Option<usize>, Unread> {
        let pairs = matches!(self.kind, b'%' | b'|');
        let items = self.length(bytes, MOST_ITEMS)?;
        Ok(items.map(|items| items << u8::from(pairs)))
    }
}

/// Where the value that begins at `at` ends.
fn end(bytes: &[u8], at: usize, depth: usize) -> Result<usize, Unread> {
    if depth > DEEPEST {
        return Err(Unread::Garbage);
    }
    let line = Line::at(bytes, at)?;
    let mut end = line.end;
    match line.kind {
        b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => {}
        b'$' | b'!' | b'=' => {
            end = text_end(bytes, end, line.length(bytes, LONGEST_TEXT)?)?;
        }
        b'*' | b'~' | b'>' | b'%' => {
            for _ in 0..line.items(bytes)?.unwrap_or(0) {
                end = self::end(bytes, end, depth + 1)?;
            }
        }
        // What is said about the value that follows.
        b'|' => {
            for _ in 0..=line.items(bytes)?.unwrap_or(0) {
                end = self::end(bytes, end, depth + 1)?;
            }
        }
        _ => return Err(Unread::Garbage),
    }
    Ok(end)
}

/// The value that begins at `at`, all of which is there.
fn build(frame: &Bytes, at: &mut usize) -> Result<Answer, Unread> {
    let line = Line::at(frame, *at)?;
    *at = line.end;
    let rest_of_line = || frame.slice(line.start..line.stop);
    Ok(match line.kind {
        b'_' => Answer::Nil,
        b':' => Answer::Int(line.number(frame)?),
        b'-' => Answer::Error(Refusal::new(&rest_of_line())),
        b'$' | b'!' | b'=' => {
            let Some(length) = line.length(frame, LONGEST_TEXT)? else {
                return Ok(Answer::Nil);
            };
            *at += length + 2;
            let text = part(frame.clone(), line.end, length);
            match line.kind {
                b'!' => Answer::Error(Refusal::new(&text)),
                // Behind three letters for its format, and a colon.
                b'=' => Answer::Text(text.slice(length.min(4)..)),
                _ => Answer::Text(text),
            }
        }
        b'*' | b'~' | b'>' | b'%' => {
            let Some(items) = line.items(frame)? else {
                return Ok(Answer::Nil);
            };
            let items = (0..items).map(|_| build(frame, at));
            Answer::Array(items.collect::<Result<_, _>>()?)
        }
        b'|' => {
            for _ in 0..line.items(frame)?.unwrap_or(0) {
                build(frame, at)?;
            }
            build(frame, at)?
        }
        _ => Answer::Text(rest_of_line()),
    })
}

fn part(mut bytes: Bytes, start: usize, length: usize) -> Bytes {
    bytes.advance(start);
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Frame, Unread> {
        take(&mut BytesMut::from(bytes))
    }

    fn text(text: &'static str) -> Answer {
        Answer::Text(Bytes::from(text))
    }

    #[test]
    fn a_request_is_arrays_of_texts() {
        let mut request = Request::with_capacity(2);
        request.command([b"HGET", b"k", b""]);
        request.begin(2);
        request.word(b"GET");
        request.number(1_234_567_890);
        let bytes =
            "*3\r\n$4\r\nHGET\r\n$1\r\nk\r\n$0\r\n\r\n*2\r\n$3\r\nGET\r\n$10\r\n1234567890\r\n";
        assert_eq!(request.as_bytes(), bytes.as_bytes());
        assert_eq!(request.len(), 2);
        for number in [0, 9, 10, u64::MAX] {
            let (digits, at) = decimal(number);
            assert_eq!(&digits[at..], number.to_string().as_bytes());
        }
    }

    #[test]
    fn every_kind_of_answer_is_read() {
        let error = |text: &str| Answer::Error(Refusal(text.into()));
        let cases: [(&str, Answer); 20] = [
            ("+OK\r\n", text("OK")),
            ("+\r\n", text("")),
            ("-ERR no\r\n", error("ERR no")),
            (":-7\r\n", Answer::Int(-7)),
            ("$3\r\na\nb\r\n", text("a\nb")),
            ("$0\r\n\r\n", text("")),
            ("$-1\r\n", Answer::Nil),
            ("*-1\r\n", Answer::Nil),
            ("_\r\n", Answer::Nil),
            (",1.5\r\n", text("1.5")),
            ("#t\r\n", text("t")),
            ("(12345678901234567890\r\n", text("12345678901234567890")),
            ("!6\r\nERR no\r\n", error("ERR no")),
            ("=6\r\ntxt:ab\r\n", text("ab")),
            ("*0\r\n", Answer::Array(vec![])),
            (
                "*2\r\n:1\r\n*1\r\n_\r\n",
                Answer::Array(vec![Answer::Int(1), Answer::Array(vec![Answer::Nil])]),
            ),
            ("~1\r\n$1\r\na\r\n", Answer::Array(vec![text("a")])),
            (
                "%1\r\n+a\r\n:1\r\n",
                Answer::Array(vec![text("a"), Answer::Int(1)]),
            ),
            ("|1\r\n+ttl\r\n:1\r\n+x\r\n", text("x")),
            (
                "*1\r\n|1\r\n+ttl\r\n:1\r\n+x\r\n",
                Answer::Array(vec![text("x")]),
            ),
        ];
        for (bytes, answer) in cases {
            assert_eq!(
                read(bytes.as_bytes()),
                Ok(Frame::Answer(answer)),
                "{bytes:?}"
            );
        }
        let news = read(b">2\r\n$10\r\ninvalidate\r\n_\r\n");
        assert_eq!(news, Ok(Frame::News(vec![text("invalidate"), Answer::Nil])));
    }

    #[test]
    fn the_words_of_an_error() {
        let refusal = Refusal::new(b"MOVED 3999 127.0.0.1:6381");
        assert_eq!(refusal.code(), "MOVED");
        assert_eq!(refusal.details(), Some("3999 127.0.0.1:6381"));
        assert_eq!(Refusal::new(b"NOSCRIPT").details(), None);
        assert_eq!(Refusal::new(b"NOSCRIPT").code(), "NOSCRIPT");
    }

    #[test]
    fn garbage_is_told_from_what_is_not_there_yet() {
        let deep = "*1\r\n".repeat(DEEPEST + 2);
        for garbage in [
            "hello\r\n",
            "\r\n",
            "\n",
            "$x\r\n",
            "$-2\r\n",
            "$99999999999\r\n",
            "$1\r\nab\r\n",
            ":1.5\r\n",
            "*99999999999\r\n",
            "*1\r\nx\r\n",
            ":1\n",
            &deep,
        ] {
            assert_eq!(
                read(garbage.as_bytes()),
                Err(Unread::Garbage),
                "{garbage:?}"
            );
        }
        assert_eq!(read(b""), Err(Unread::Until(1)));
        assert_eq!(read(b"$10\r\nabc"), Err(Unread::Until(17)));
        assert_eq!(read(b"*2\r\n:1\r\n$10\r\nabc"), Err(Unread::Until(25)));
    }

    fn values() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            "[+,#(][a-z0-9 ]{0,8}".prop_map(|line| format!("{line}\r\n").into_bytes()),
            "-[A-Z]{1,5}( [a-z]{0,5})?".prop_map(|line| format!("{line}\r\n").into_bytes()),
            any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
            Just(b"_\r\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(|text| {
                [format!("${}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat()
            }),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop::collection::vec(inner, 0..4).prop_map(|items| {
                [format!("*{}\r\n", items.len()).into_bytes(), items.concat()].concat()
            })
        })
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_they_are_cut(
            frames in prop::collection::vec(values(), 1..5),
            cut in 1..20_usize,
        ) {
            let whole: Vec<_> = frames.iter().map(|frame| read(frame).unwrap()).collect();
            let (mut received, mut taken) = (BytesMut::new(), Vec::new());
            for part in frames.concat().chunks(cut) {
                received.extend_from_slice(part);
                loop {
                    match take(&mut received) {
                        Ok(frame) => taken.push(frame),
                        Err(Unread::Until(length)) => {
                            prop_assert!(length > received.len());
                            break;
                        }
                        Err(Unread::Garbage) => panic!("garbage"),
                    }
                }
            }
            prop_assert!(received.is_empty());
            prop_assert_eq!(taken, whole);
        }

        #[test]
        fn it_is_read_as_redis_rs_reads_it(frame in values()) {
            let theirs = redis::parse_redis_value(&frame);
            let Ok(Frame::Answer(ours)) = read(&frame) else { panic!("unread") };
            if let Ok(theirs) = theirs {
                prop_assert!(alike(&ours, &theirs), "{:?} {:?}", ours, theirs);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut received = BytesMut::from(&bytes[..]);
            while take(&mut received).is_ok() {}
        }
    }

    fn alike(ours: &Answer, theirs: &redis::Value) -> bool {
        use redis::Value;
        match (ours, theirs) {
            (Answer::Nil, Value::Nil) => true,
            (Answer::Int(ours), Value::Int(theirs)) => ours == theirs,
            (Answer::Text(ours), Value::BulkString(theirs)) => ours == theirs,
            (Answer::Text(ours), Value::SimpleString(theirs)) => ours == theirs,
            (Answer::Text(ours), Value::Okay) => ours == "OK",
            (Answer::Text(_), Value::Double(_) | Value::Boolean(_) | Value::BigNumber(_)) => true,
            (Answer::Error(ours), Value::ServerError(theirs)) => ours.details() == theirs.details(),
            (Answer::Array(ours), Value::Array(theirs)) => {
                ours.len() == theirs.len()
                    && ours
                        .iter()
                        .zip(theirs)
                        .all(|(ours, theirs)| alike(ours, theirs))
            }
            _ => false,
        }
    }
}
