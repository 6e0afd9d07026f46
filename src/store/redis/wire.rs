//! Operations as commands, and the server's answers as replies.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;

use super::resp::{Answer, Refusal, Request};
use crate::key::Key;
use crate::store::{
    Acquired, Filled, Fingerprint, LEASE_KEPT, Op, Over, Reply, Seen, StoreError, Token,
};

/// A Lua script and the hash under which the server knows it.
pub(super) struct Script {
    pub(super) source: &'static str,
    hash: String,
}

impl Script {
    fn new(source: &'static str) -> Self {
        let hash = redis::Script::new(source).get_hash().to_owned();
        Self { source, hash }
    }

    /// Begins a call of the script by its hash, on one key and so many other arguments.
    fn on(&self, request: &mut Request, key: &str, arguments: usize) {
        self.on_all(request, [key].into_iter(), arguments);
    }

    /// The same on several keys.
    fn on_all<'a>(
        &self,
        request: &mut Request,
        keys: impl ExactSizeIterator<Item = &'a str>,
        arguments: usize,
    ) {
        request.begin(3 + keys.len() + arguments);
        request.word(b"EVALSHA");
        request.word(self.hash.as_bytes());
        request.number(keys.len() as u64);
        keys.for_each(|key| request.word(key.as_bytes()));
    }
}

/// The scripts of the operations.
pub(super) struct Scripts {
    acquire: Script,
    fill: Script,
    release: Script,
    fence: Script,
    settle: Script,
    generation: Script,
    put: Script,
}

impl Scripts {
    pub(super) const COUNT: usize = 7;

    pub(super) fn all(&self) -> [&Script; Self::COUNT] {
        [
            &self.acquire,
            &self.fill,
            &self.release,
            &self.fence,
            &self.settle,
            &self.generation,
            &self.put,
        ]
    }
}

macro_rules! script {
    ($file:literal) => {
        concat!(include_str!("../lua/prelude.lua"), include_str!($file))
    };
    ($file:literal, allow_oom) => {
        concat!(
            "#!lua flags=allow-oom\n",
            include_str!("../lua/prelude.lua"),
            include_str!($file)
        )
    };
}

pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    acquire: Script::new(script!("../lua/acquire.lua")),
    fill: Script::new(script!("../lua/fill.lua")),
    release: Script::new(script!("../lua/release.lua")),
    fence: Script::new(script!("../lua/fence.lua", allow_oom)),
    settle: Script::new(script!("../lua/settle.lua", allow_oom)),
    generation: Script::new(script!("../lua/generation.lua")),
    put: Script::new(script!("../lua/put.lua")),
});

/// The root generation's script. It runs seldom, and so by its source.
const ROOT: &str = script!("../lua/root.lua", allow_oom);

/// The command that loads a script.
pub(super) fn load(request: &mut Request, script: &Script) {
    request.command([b"SCRIPT", b"LOAD", script.source.as_bytes()]);
}

/// The command that looks at about a thousand keys and tells those that begin with `prefix`, in which nothing
/// stands for anything but itself.
pub(super) fn scan(prefix: &str, cursor: &str) -> Request {
    let mut request = Request::default();
    let cursor = if cursor.is_empty() { "0" } else { cursor };
    let pattern = format!("{prefix}*");
    request.command([
        b"SCAN",
        cursor.as_bytes(),
        b"MATCH",
        pattern.as_bytes(),
        b"COUNT",
        b"1000",
    ]);
    request
}

/// A batch as commands: an operation each, or a run of fences or settles of one writer.
#[derive(Clone)]
pub(super) struct Calls<'a> {
    batch: &'a [Op],
    longest: usize,
}

/// Fences or settles of so many keys at most are one command, for which others wait some tenths of a millisecond.
pub(super) const LONGEST_RUN: usize = 100;

impl<'a> Calls<'a> {
    /// With at most `longest` operations in a command.
    pub(super) fn new(batch: &'a [Op], longest: usize) -> Self {
        Self { batch, longest }
    }
}

impl<'a> Iterator for Calls<'a> {
    type Item = Call<'a>;

    fn next(&mut self) -> Option<Call<'a>> {
        let first = self.batch.first()?;
        let run = self.batch.iter().take(self.longest);
        let length = run.take_while(|op| run_together(first, op)).count().max(1);
        let (run, rest) = self.batch.split_at(length);
        self.batch = rest;
        Some(Call::Ops(run))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.batch.len()))
    }
}

fn run_together(one: &Op, other: &Op) -> bool {
    match (one, other) {
        (Op::Settle { writer: one, .. }, Op::Settle { writer: other, .. }) => one == other,
        (
            Op::Fence { writer, ttl, .. },
            Op::Fence {
                writer: w, ttl: t, ..
            },
        ) => (writer, ttl) == (w, t),
        _ => false,
    }
}

/// What is asked of a server: one command.
#[derive(Clone, Copy)]
pub(super) enum Call<'a> {
    /// One operation, or several fences or settles of one writer.
    Ops(&'a [Op]),
    /// Looks up the root generation of `key`, recorded under `run`; `known` is its name if it was
    /// known and is merely missing.
    Root {
        key: &'a str,
        run: &'a str,
        known: Option<Token>,
    },
}

impl Call<'_> {
    /// The key that decides which node of a cluster is asked, where each call has one.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Ops(ops) => ops[0].key().as_str(),
            Self::Root { key, .. } => key,
        }
    }

    pub(super) fn write(&self, request: &mut Request) {
        match self {
            Self::Ops(ops) => write(request, ops),
            Self::Root { key, run, known } => {
                let known = known.map(hex);
                let known = known.as_ref().map_or(&b""[..], |known| known);
                let fresh = hex(Token::random());
                let (key, run) = (key.as_bytes(), run.as_bytes());
                request.command([b"EVAL", ROOT.as_bytes(), b"1", key, run, &fresh, known]);
            }
        }
    }
}

/// The command of an operation, or of several fences or settles of one writer.
fn write(request: &mut Request, ops: &[Op]) {
    let keys = || ops.iter().map(|op| op.key().as_str());
    match &ops[0] {
        Op::Read { key, field } => {
            request.command([b"HGET", key.as_str().as_bytes(), &value_field(*field)]);
        }
        Op::Peek { key } => request.command([b"HGET", key.as_str().as_bytes(), b"g"]),
        Op::Life { key } => request.command([b"PTTL", key.as_str().as_bytes()]),
        Op::Generation { key, fresh, ttl } => {
            SCRIPTS.generation.on(request, key.as_str(), 2);
            request.word(&hex(*fresh));
            request.number(ttl.map_or(0, millis));
        }
        Op::Acquire {
            key,
            field,
            lease,
            seen,
            ttl,
        } => {
            SCRIPTS.acquire.on(request, key.as_str(), 7);
            request.word(&value_field(*field));
            request.word(&lease_field(*field));
            request.word(&hex(*lease));
            request.number(millis(*ttl));
            request.number(millis(ttl.saturating_add(LEASE_KEPT)));
            match seen.seal() {
                Some(seal) => request.word(&seal.to_be_bytes()),
                None => request.word(b""),
            }
            let stays: &[u8] = if matches!(seen, Seen::Aged(_)) {
                b"1"
            } else {
                b""
            };
            request.word(stays);
        }
        Op::Fill {
            key,
            field,
            lease,
            value,
            ttl,
        } => {
            SCRIPTS.fill.on(request, key.as_str(), 5);
            request.word(&value_field(*field));
            request.word(&lease_field(*field));
            request.word(&hex(*lease));
            request.word(value);
            request.number(millis(*ttl));
        }
        Op::Put {
            key,
            field,
            value,
            ttl,
            over,
        } => {
            SCRIPTS.put.on(request, key.as_str(), 4);
            request.word(&value_field(*field));
            request.word(value);
            request.number(millis(*ttl));
            match over {
                Over::Anything => request.word(b"*"),
                Over::Nothing => request.word(b""),
                Over::Seal(seal) => request.word(&seal.to_be_bytes()),
            }
        }
        Op::Release { key, field, lease } => {
            SCRIPTS.release.on(request, key.as_str(), 2);
            request.word(&lease_field(*field));
            request.word(&hex(*lease));
        }
        Op::Fence { writer, ttl, .. } => {
            SCRIPTS.fence.on_all(request, keys(), 2);
            request.word(&fence_field(*writer));
            request.number(millis(*ttl));
        }
        Op::Settle { writer, .. } => {
            SCRIPTS.settle.on_all(request, keys(), 1);
            request.word(&fence_field(*writer));
        }
    }
}

/// A field of an entry: two characters and a number, without the allocation of a `String`.
type Field<const N: usize> = [u8; N];

fn value_field(field: Fingerprint) -> Field<13> {
    field_of(b"v:", letters(field))
}

fn lease_field(field: Fingerprint) -> Field<13> {
    field_of(b"l:", letters(field))
}

fn fence_field(writer: Token) -> Field<18> {
    field_of(b"f:", hex(writer))
}

fn field_of<const N: usize, const M: usize>(kind: &[u8; 2], number: [u8; M]) -> Field<N> {
    let mut field = [0; N];
    field[..2].copy_from_slice(kind);
    field[2..].copy_from_slice(&number);
    field
}

/// Eleven letters for a fingerprint: with the two characters before them, Redis has a field in 16 bytes,
/// where hex digits would take 32.
fn letters(field: Fingerprint) -> [u8; 11] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    std::array::from_fn(|place| {
        let digit = field.0 >> (60 - 6 * place) & 0x3f;
        ALPHABET[digit as usize]
    })
}

fn hex(token: Token) -> [u8; 16] {
    digits(token.get())
}

/// Sixteen hex digits.
fn digits(number: u64) -> [u8; 16] {
    std::array::from_fn(|place| {
        let digit = number >> (60 - 4 * place) & 0xf;
        b"0123456789abcdef"[digit as usize]
    })
}

/// Whole milliseconds, at least one, at most thirty years: what the server can count with.
fn millis(time: Duration) -> u64 {
    const MOST: u128 = 30 * 365 * 24 * 60 * 60 * 1000;
    u64::try_from(time.as_millis().clamp(1, MOST)).unwrap_or(u64::MAX)
}

/// Whether the server has lost the script that the command named.
pub(super) fn is_unknown_script(answer: &Answer) -> bool {
    matches!(answer, Answer::Error(error) if error.code() == "NOSCRIPT")
}

/// The reply to an operation.
pub(super) fn reply(op: &Op, answer: Answer) -> Result<Reply, StoreError> {
    if let Answer::Error(error) = answer {
        return refused(&error);
    }
    match op {
        Op::Read { .. } => bytes(answer).map(Reply::Value),
        Op::Peek { .. } => {
            bytes(answer).map(|name| Reply::Generation(name.and_then(|name| token(&name))))
        }
        Op::Life { .. } => match answer {
            // Below zero: there is no such key, or it has no end.
            Answer::Int(millis) => Ok(Reply::Life(
                u64::try_from(millis).ok().map(Duration::from_millis),
            )),
            _ => Err(unexpected("a look-up")),
        },
        Op::Generation { .. } => bytes(answer)?
            .map(|name| token(&name).ok_or_else(|| unexpected("a generation")))
            .transpose()
            .map(Reply::Generation),
        Op::Acquire { .. } => acquired(answer).map(Reply::Acquired),
        Op::Fill { .. } | Op::Put { .. } => match answer {
            Answer::Int(1) => Ok(Reply::Filled(Filled::Stored)),
            Answer::Int(0) => Ok(Reply::Filled(Filled::Superseded)),
            _ => Err(unexpected("a fill")),
        },
        Op::Release { .. } | Op::Fence { .. } | Op::Settle { .. } => match answer {
            Answer::Int(1) => Ok(Reply::Done),
            _ => Err(unexpected("a write")),
        },
    }
}

/// A cluster node's answer that another node is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Redirection<'a> {
    /// Its `host:port`.
    pub(super) to: &'a str,
    /// For this once only: the slot is on its way to that node.
    pub(super) once: bool,
}

/// Where the node sends us instead of answering, if it does.
pub(super) fn redirection(answer: &Answer) -> Option<Redirection<'_>> {
    let Answer::Error(error) = answer else {
        return None;
    };
    let once = match error.code() {
        "MOVED" => false,
        "ASK" => true,
        _ => return None,
    };
    let (_slot, to) = error.details()?.split_once(' ')?;
    Some(Redirection { to, once })
}

/// Whether a script came to its end halfway because it had deleted the last field of its key, which is
/// on its way to another node and can be written only there. Its second run is sent on.
pub(super) fn is_cut_short(answer: &Answer) -> bool {
    let text = |error: &Refusal| error.text().contains(NOT_HERE);
    matches!(answer, Answer::Error(error) if text(error))
}

/// In the error of Redis 7 and 8, and of Valkey, some of which begin it with a capital.
const NOT_HERE: &str = "ttempted to access a non local key in a cluster node";

/// Whether a server takes no command on these keys at once: it is of a cluster, though it was not said to be.
pub(super) fn is_of_many_slots(answer: &Answer) -> bool {
    matches!(answer, Answer::Error(error) if error.code() == "CROSSSLOT")
}

/// Whether a cluster node answers that it does not know who owns what, or is no primary any more.
pub(super) fn is_lost(answer: &Answer) -> bool {
    matches!(answer, Answer::Error(error)
        if matches!(error.code(), "CLUSTERDOWN" | "TRYAGAIN" | "READONLY" | "MASTERDOWN"))
}

/// The host and port of the primary that a sentinel names; none if it does not know it.
pub(super) fn primary(answer: Answer) -> Result<Option<(String, u16)>, StoreError> {
    let parts = match answer {
        Answer::Nil => return Ok(None),
        Answer::Array(parts) => parts,
        Answer::Error(error) => return Err(StoreError::Unreachable(error.text().to_owned())),
        _ => return Err(unexpected("a sentinel's question")),
    };
    let texts = parts.into_iter().map(|part| {
        let text = String::from_utf8(bytes(part)?.unwrap_or_default().into());
        text.map_err(|_| unexpected("a sentinel's question"))
    });
    match &texts.collect::<Result<Vec<_>, _>>()?[..] {
        [host, port] => match port.parse() {
            Ok(port) => Ok(Some((host.clone(), port))),
            Err(_) => Err(unexpected("a sentinel's question")),
        },
        _ => Err(unexpected("a sentinel's question")),
    }
}

/// What an error means: that this server is not fit to answer us, or that one op failed.
fn refused(error: &Refusal) -> Result<Reply, StoreError> {
    let text = error.text().to_owned();
    match error.code() {
        "LOADING" | "MASTERDOWN" | "READONLY" | "BUSY" | "NOAUTH" | "MOVED" | "ASK"
        | "TRYAGAIN" | "CLUSTERDOWN" => Err(StoreError::Unreachable(text)),
        "NOSCRIPT" => Err(StoreError::Protocol(text)),
        _ => Ok(Reply::Failed(text)),
    }
}

fn acquired(answer: Answer) -> Result<Acquired, StoreError> {
    let Answer::Array(parts) = answer else {
        return Err(unexpected("an acquire"));
    };
    let mut parts = parts.into_iter().map(bytes);
    let word = parts.next().transpose()?.flatten().unwrap_or_default();
    let rest = parts.next().transpose()?.flatten();
    match (&word[..], rest) {
        (b"granted", None) => Ok(Acquired::Granted),
        (b"fenced", None) => Ok(Acquired::Fenced),
        (b"value", Some(value)) => Ok(Acquired::Value(value)),
        (b"busy", Some(lease)) => token(&lease)
            .map(Acquired::Busy)
            .ok_or_else(|| unexpected("an acquire")),
        _ => Err(unexpected("an acquire")),
    }
}

/// The keys that a [`scan`] found, and its next cursor unless it is at its end.
pub(super) fn scanned(answer: Option<Answer>) -> Result<(Vec<Key>, Option<String>), StoreError> {
    let parts = match answer {
        Some(Answer::Array(parts)) => parts,
        Some(Answer::Error(error)) => return Err(StoreError::Protocol(error.text().to_owned())),
        _ => return Err(unexpected("a scan")),
    };
    let text = |text: &Bytes| std::str::from_utf8(text).ok().map(str::to_owned);
    let [Answer::Text(cursor), Answer::Array(keys)] = &parts[..] else {
        return Err(unexpected("a scan"));
    };
    let keys = keys.iter().filter_map(|key| match key {
        // What is no text is none of ours.
        Answer::Text(key) => text(key).map(Key::from),
        _ => None,
    });
    Ok((keys.collect(), text(cursor).filter(|cursor| cursor != "0")))
}

/// The root generation's name.
pub(super) fn root_name(answer: Answer) -> Result<Token, StoreError> {
    if let Answer::Error(error) = answer {
        return Err(StoreError::Unreachable(error.text().to_owned()));
    }
    bytes(answer)?
        .and_then(|name| token(&name))
        .ok_or_else(|| unexpected("the root generation"))
}

/// The server's `run_id` in its answer to `INFO server`.
pub(super) fn run_id(answer: Answer) -> Option<String> {
    let Answer::Text(text) = answer else {
        return None;
    };
    let text = std::str::from_utf8(&text).ok()?;
    let id = text.lines().find_map(|line| line.strip_prefix("run_id:"))?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Names the servers of a cluster in one text that changes with any of them.
pub(super) fn run_of_all(mut runs: Vec<&str>) -> String {
    runs.sort_unstable();
    redis::Script::new(&runs.join(" ")).get_hash().to_owned()
}

fn bytes(answer: Answer) -> Result<Option<Bytes>, StoreError> {
    match answer {
        Answer::Nil => Ok(None),
        Answer::Text(bytes) => Ok(Some(bytes)),
        _ => Err(unexpected("a look-up")),
    }
}

/// A token of 16 hex digits; anything else is garbage, and counts as absent.
fn token(text: &[u8]) -> Option<Token> {
    let digits: &[u8; 16] = text.try_into().ok()?;
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(number << 4 | u64::from(digit))
    });
    Token::new(number?)
}

fn unexpected(what: &str) -> StoreError {
    StoreError::Protocol(format!("not an answer to {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn acquire() -> Op {
        Op::Acquire {
            key: Key::from("k".to_owned()),
            field: Fingerprint(1),
            lease: Token::random(),
            seen: Seen::Nothing,
            ttl: Duration::from_secs(1),
        }
    }

    fn bulk(text: &'static str) -> Answer {
        Answer::Text(text.into())
    }

    #[test]
    fn fences_and_settles_of_one_writer_run_together() {
        let (one, other) = (Token::random(), Token::random());
        let key = || Key::from("k".to_owned());
        let settle = |writer| Op::Settle { key: key(), writer };
        let fence = |writer, seconds| Op::Fence {
            key: key(),
            writer,
            ttl: Duration::from_secs(seconds),
        };
        let lengths = |batch: &[Op], longest| -> Vec<usize> {
            let length = |call| match call {
                Call::Ops(ops) => ops.len(),
                Call::Root { .. } => 0,
            };
            Calls::new(batch, longest).map(length).collect()
        };
        let batch = [
            settle(one),
            settle(one),
            settle(other),
            fence(other, 1),
            fence(other, 1),
            fence(other, 2),
            acquire(),
            acquire(),
            settle(one),
            settle(one),
            settle(one),
        ];
        assert_eq!(lengths(&batch, 100), [2, 1, 2, 1, 1, 1, 3]);
        assert_eq!(lengths(&batch, 2), [2, 1, 2, 1, 1, 1, 2, 1]);
        assert_eq!(lengths(&batch, 1), [1; 11]);
        assert!(lengths(&[], 100).is_empty());
    }

    #[test]
    fn an_answer_of_the_wrong_shape_is_an_error() {
        let key = Key::from("k".to_owned());
        let read = Op::Read {
            key: key.clone(),
            field: Fingerprint(1),
        };
        let settle = Op::Settle {
            key,
            writer: Token::random(),
        };
        let wrong = [
            (read, Answer::Int(1)),
            (settle, bulk("OK")),
            (acquire(), Answer::Nil),
            (acquire(), Answer::Array(vec![])),
            (acquire(), Answer::Array(vec![bulk("value")])),
            (acquire(), Answer::Array(vec![bulk("busy"), bulk("nobody")])),
            (acquire(), Answer::Array(vec![bulk("granted"), bulk("x")])),
        ];
        for (op, answer) in wrong {
            let outcome = reply(&op, answer.clone());
            assert!(
                matches!(outcome, Err(StoreError::Protocol(_))),
                "{answer:?}: {outcome:?}"
            );
        }
    }

    #[test]
    fn a_token_is_sixteen_hex_digits_and_not_zero() {
        assert_eq!(token(b"00000000000000ff"), Token::new(255));
        for garbage in [
            "",
            "ff",
            "0000000000000000",
            "+0000000000000ff",
            "00000000000000fg",
        ] {
            assert_eq!(token(garbage.as_bytes()), None, "{garbage}");
        }
    }

    #[test]
    fn a_fingerprint_is_told_by_every_bit_and_takes_thirteen_bytes() {
        let all: std::collections::HashSet<_> = (0..64)
            .map(|bit| value_field(Fingerprint(1 << bit)))
            .chain([0, u64::MAX].map(|field| value_field(Fingerprint(field))))
            .collect();
        assert_eq!(all.len(), 66);
        assert_eq!(&value_field(Fingerprint(63)), b"v:AAAAAAAAAA_");
        assert_eq!(&lease_field(Fingerprint(u64::MAX)), b"l:P__________");
    }

    #[test]
    fn times_are_whole_milliseconds_within_what_the_server_can_count() {
        assert_eq!(millis(Duration::ZERO), 1);
        assert_eq!(millis(Duration::from_millis(1500)), 1500);
        assert_eq!(millis(Duration::MAX), 946_080_000_000);
    }

    #[test]
    fn a_redirection_is_told_from_other_errors() {
        let error = |text: &str| Answer::Error(Refusal::new(text.as_bytes()));
        let moved = error("MOVED 3999 127.0.0.1:6381");
        let to = "127.0.0.1:6381";
        assert_eq!(redirection(&moved), Some(Redirection { to, once: false }));
        let ask = error("ASK 3999 127.0.0.1:6381");
        assert_eq!(redirection(&ask), Some(Redirection { to, once: true }));
        let lost = error("CLUSTERDOWN The cluster is down");
        assert_eq!(redirection(&lost), None);
        assert!(is_lost(&lost) && !is_lost(&moved));
        for cut in [
            "ERR Script attempted to access a non local key in a cluster node script: 1",
            "ERR Attempted to access a non local key in a cluster node script: 1",
        ] {
            assert!(is_cut_short(&error(cut)));
        }
        assert!(!is_cut_short(&moved));
        assert_eq!(redirection(&error("MOVED")), None);
    }

    #[test]
    fn a_primary_is_a_host_and_a_port() {
        let named = Answer::Array(vec![bulk("10.0.0.1"), bulk("6379")]);
        assert_eq!(primary(named).unwrap(), Some(("10.0.0.1".to_owned(), 6379)));
        assert_eq!(primary(Answer::Nil).unwrap(), None);
        for wrong in [
            bulk("OK"),
            Answer::Array(vec![]),
            Answer::Array(vec![bulk("10.0.0.1"), bulk("port")]),
        ] {
            assert!(primary(wrong.clone()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_name_of_all_servers_does_not_depend_on_their_order_and_changes_with_any() {
        let name = run_of_all(vec!["a", "b"]);
        assert_eq!(name, run_of_all(vec!["b", "a"]));
        for other in [vec!["a"], vec!["a", "c"], vec!["a", "b", "c"]] {
            assert_ne!(name, run_of_all(other));
        }
    }

    #[test]
    fn the_run_id_is_found_in_the_servers_information() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\ntcp_port:1\r\n";
        assert_eq!(run_id(bulk(info)).as_deref(), Some("abc"));
        assert_eq!(run_id(bulk("# Server\r\n")), None);
        assert_eq!(run_id(Answer::Nil), None);
    }
}
