//! The envelope around every cached value: its seal, what it depends on, and what was asked.

use bytes::Bytes;

use crate::codec::{CodecError, Reader, put_varint};
use crate::key::Key;
use crate::store::Token;

/// The generations that values of one shape depend on, as they stood at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The root generation.
    pub(crate) root: Token,
    /// The others, in the order of the shape's dependencies; `None` where there was none or a fence
    /// stood.
    pub(crate) generations: Vec<Option<Token>>,
}

impl Noted {
    /// Whether the first `n` generations all stand.
    pub(crate) fn stand(&self, n: usize) -> bool {
        self.generations.len() >= n && self.generations[..n].iter().all(Option::is_some)
    }
}

/// An opened envelope.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    /// Names this value among all values that the entry ever had.
    pub(crate) seal: u64,
    root: u64,
    dependencies: u64,
    generations: &'a [u8],
    asked: &'a [u8],
    /// Whether there is such a row.
    pub(crate) present: bool,
    /// The encoded value.
    pub(crate) payload: &'a [u8],
}

const PRESENT: u8 = 1;
const ABSENT: u8 = 0;

/// Names a list of dependencies: values that were stored with other ones are not comparable.
pub(crate) fn dependencies_id(keys: &[Key]) -> u64 {
    let mut text = Vec::new();
    for key in keys {
        text.extend_from_slice(key.as_str().as_bytes());
        text.push(0);
    }
    // The low half of a 128-bit hash.
    crate::codec::stable_hash128(&text) as u64
}

/// Names the dependencies of the value under `key`, whose list is named `dependencies`: a value that
/// somebody moved to another key is not that key's.
pub(crate) fn place_id(dependencies: u64, key: &Key) -> u64 {
    dependencies ^ crate::codec::stable_hash128(key.as_str().as_bytes()) as u64
}

/// Wraps an encoded value.
pub(crate) fn seal(
    seal: Token,
    noted: &Noted,
    dependencies: u64,
    asked: &[u8],
    present: bool,
    payload: &[u8],
) -> Bytes {
    let mut out =
        Vec::with_capacity(40 + noted.generations.len() * 8 + asked.len() + payload.len());
    out.extend_from_slice(&seal.get().to_be_bytes());
    out.extend_from_slice(&noted.root.get().to_be_bytes());
    out.extend_from_slice(&dependencies.to_be_bytes());
    out.push(if present { PRESENT } else { ABSENT });
    put_varint(&mut out, noted.generations.len() as u64);
    for generation in &noted.generations {
        out.extend_from_slice(&generation.map_or(0, Token::get).to_be_bytes());
    }
    put_varint(&mut out, asked.len() as u64);
    out.extend_from_slice(asked);
    out.extend_from_slice(payload);
    out.into()
}

impl<'a> Envelope<'a> {
    /// Opens an envelope.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let seal = number(&mut reader)?;
        let root = number(&mut reader)?;
        let dependencies = number(&mut reader)?;
        let present = match reader.take(1)? {
            [PRESENT] => true,
            [ABSENT] => false,
            _ => return Err(CodecError::Corrupt("envelope kind")),
        };
        let generations = sized(&mut reader, 8)?;
        let asked = sized(&mut reader, 1)?;
        let payload = reader.rest();
        Ok(Self {
            seal,
            root,
            dependencies,
            generations,
            asked,
            present,
            payload,
        })
    }

    /// Whether the value was cached under this root generation.
    pub(crate) fn has_root(&self, root: Token) -> bool {
        self.root == root.get()
    }

    /// Whether the value answers `asked` and the first `n` of its dependencies still stand.
    pub(crate) fn is_valid(
        &self,
        noted: &Noted,
        dependencies: u64,
        n: usize,
        asked: &[u8],
    ) -> bool {
        self.has_root(noted.root)
            && self.dependencies == dependencies
            && self.asked == asked
            && noted.stand(n)
            && self.generations.len() >= n * 8
            && self
                .generations
                .chunks_exact(8)
                .zip(&noted.generations)
                .take(n)
                .all(|(stored, now)| now.is_some_and(|now| stored == now.get().to_be_bytes()))
    }
}

fn number(reader: &mut Reader<'_>) -> Result<u64, CodecError> {
    let bytes = reader.take(8)?;
    Ok(bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

fn sized<'a>(reader: &mut Reader<'a>, unit: usize) -> Result<&'a [u8], CodecError> {
    let count = usize::try_from(reader.varint()?).map_err(|_| CodecError::Truncated)?;
    reader.take(count.checked_mul(unit).ok_or(CodecError::Truncated)?)
}
