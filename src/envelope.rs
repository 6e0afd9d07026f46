//! The envelope around every cached value: its seal, what it depends on, and what was asked.

mod packing;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::codec::{CodecError, Reader, put_varint};
use crate::key::Key;
use crate::store::Token;
pub(crate) use packing::Packing;

/// The generations that values of one shape depend on, as they stood at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The root generation.
    pub(crate) root: Token,
    /// The others, in the order of the shape's dependencies; `None` where there was none or a fence
    /// stood.
    pub(crate) generations: SmallVec<[Option<Token>; 2]>,
}

impl Noted {
    /// Whether the first `n` generations all stand.
    pub(crate) fn stand(&self, n: usize) -> bool {
        self.generations.len() >= n && self.generations[..n].iter().all(Option::is_some)
    }

    /// Names the first `n` generations of a value's `place`, if they all stand. Another token in one of
    /// them always makes another name; in several, save once in 2^64, as tokens are random.
    pub(crate) fn stamp(&self, place: u64, n: usize) -> Option<u64> {
        let mut generations = self.generations.get(..n)?.iter();
        generations.try_fold(place, |stamp, generation| {
            let mixed = (stamp ^ (*generation)?.get()).wrapping_mul(MIXER);
            Some(mixed.rotate_left(32))
        })
    }
}

/// An opened envelope.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    /// Names this value among all values that the entry ever had.
    pub(crate) seal: u64,
    root: u64,
    stamp: u64,
    asked: &'a [u8],
    /// What it depends on, if it says so itself: see [`listed`].
    own: Option<&'a [u8]>,
    /// Whether there is such a row.
    pub(crate) present: bool,
    /// How it ages, if it does not merely expire.
    pub(crate) aging: Option<Aging>,
    compressed: bool,
    payload: &'a [u8],
}

/// How a value ages that is kept past its ttl, or refreshed before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aging {
    /// How much of its life in the store comes after its ttl.
    pub(crate) grace: Duration,
    /// How long it took to load.
    pub(crate) took: Duration,
}

/// Odd: so that no two numbers are one when multiplied by it. (2^64 divided by the golden ratio.)
const MIXER: u64 = 0x9e37_79b9_7f4a_7c15;

/// There is a value.
const PRESENT: u8 = 1;
/// It is compressed.
const COMPRESSED: u8 = 2;
/// What it depends on stands before it.
const OWN: u8 = 4;
/// How it ages stands before it.
const AGING: u8 = 8;

/// A value that claims to depend on more than this is none of ours.
const MOST_LISTED: usize = 1 << 10;

/// The keys of generations as a value lists them: a list of the same keys in the same order is the same.
pub(crate) fn listed(keys: &[Key]) -> Vec<u8> {
    let mut list = Vec::with_capacity(keys.iter().map(|key| key.as_str().len() + 1).sum());
    for key in keys {
        list.extend_from_slice(key.as_str().as_bytes());
        list.push(0);
    }
    list
}

/// The keys of a list.
fn unlisted(list: &[u8]) -> Result<Vec<Key>, CodecError> {
    let text = std::str::from_utf8(list).map_err(|_| CodecError::Corrupt("a list of keys"))?;
    let keys = text.split_terminator('\0').take(MOST_LISTED + 1);
    let keys: Vec<Key> = keys.map(|key| key.to_owned().into()).collect();
    if keys.len() > MOST_LISTED {
        return Err(CodecError::Corrupt("a list of keys"));
    }
    Ok(keys)
}

/// Names the dependencies of the value under `key`, whose list is named `dependencies`: a value that
/// somebody moved to another key is not that key's.
pub(crate) fn place_id(dependencies: u64, key: &Key) -> u64 {
    dependencies ^ crate::codec::stable_hash128(key.as_str().as_bytes()) as u64
}

/// What is sealed around an encoded value.
#[derive(Clone, Copy)]
pub(crate) struct Cover<'a> {
    pub(crate) seal: Token,
    pub(crate) root: Token,
    /// That of what was noted.
    pub(crate) stamp: u64,
    pub(crate) asked: &'a [u8],
    /// What it depends on, for those who do not know.
    pub(crate) own: Option<&'a [u8]>,
    pub(crate) present: bool,
    pub(crate) aging: Option<Aging>,
}

/// Wraps an encoded value, compressed if the packing says so and it is shorter for it.
pub(crate) fn seal(cover: Cover<'_>, payload: &[u8], packing: Packing) -> Bytes {
    let packed = match cover.present {
        true => packing.pack(payload),
        false => Cow::Borrowed(payload),
    };
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let kind = flag(cover.present, PRESENT)
        | flag(matches!(packed, Cow::Owned(_)), COMPRESSED)
        | flag(cover.own.is_some(), OWN)
        | flag(cover.aging.is_some(), AGING);
    let (asked, own) = (cover.asked, cover.own.unwrap_or_default());
    let mut out = Vec::with_capacity(40 + asked.len() + own.len() + packed.len());
    out.extend_from_slice(&cover.seal.get().to_be_bytes());
    out.extend_from_slice(&cover.root.get().to_be_bytes());
    out.extend_from_slice(&(cover.stamp ^ mark(cover.aging)).to_be_bytes());
    out.push(kind);
    put_varint(&mut out, asked.len() as u64);
    out.extend_from_slice(asked);
    if cover.own.is_some() {
        put_varint(&mut out, own.len() as u64);
        out.extend_from_slice(own);
    }
    if let Some(Aging { grace, took }) = cover.aging {
        put_varint(&mut out, millis(grace));
        put_varint(&mut out, millis(took));
    }
    out.extend_from_slice(&packed);
    out.into()
}

impl<'a> Envelope<'a> {
    /// Opens an envelope.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let seal = number(&mut reader)?;
        let root = number(&mut reader)?;
        let stamp = number(&mut reader)?;
        let kind = match *reader.take(1)? {
            [kind] if kind <= PRESENT | COMPRESSED | OWN | AGING => kind,
            _ => return Err(CodecError::Corrupt("envelope kind")),
        };
        let has = |flag| kind & flag != 0;
        let (present, compressed) = (has(PRESENT), has(COMPRESSED));
        if compressed && !present {
            return Err(CodecError::Corrupt("envelope kind"));
        }
        let asked = sized(&mut reader)?;
        let own = match has(OWN) {
            true => Some(sized(&mut reader)?),
            false => None,
        };
        let aging = match has(AGING) {
            true => Some(Aging {
                grace: Duration::from_millis(reader.varint()?),
                took: Duration::from_millis(reader.varint()?),
            }),
            false => None,
        };
        let payload = reader.rest();
        Ok(Self {
            seal,
            root,
            stamp,
            asked,
            own,
            present,
            aging,
            compressed,
            payload,
        })
    }

    /// Whether it says itself what it depends on: on these keys.
    pub(crate) fn depends_on(&self, keys: &[Key]) -> bool {
        let listed = |mut list: &[u8]| {
            for key in keys {
                let rest = list.strip_prefix(key.as_str().as_bytes());
                match rest.and_then(|rest| rest.strip_prefix(&[0])) {
                    Some(rest) => list = rest,
                    None => return false,
                }
            }
            list.is_empty()
        };
        self.own.is_some_and(listed)
    }

    /// What it says that it depends on; nothing if it does not say.
    pub(crate) fn own(&self) -> Result<Vec<Key>, CodecError> {
        self.own.map_or(Ok(Vec::new()), unlisted)
    }

    /// The encoded value; `None` where this process does not read it although another may: it is
    /// compressed and this build cannot, or it is larger than this process caches.
    pub(crate) fn payload(&self, packing: Packing) -> Result<Option<Cow<'a, [u8]>>, CodecError> {
        if !self.compressed {
            return Ok(Some(Cow::Borrowed(self.payload)));
        }
        Ok(packing.unpack(self.payload)?.map(Cow::Owned))
    }

    /// Whether the value was cached under this root generation.
    pub(crate) fn has_root(&self, root: Token) -> bool {
        self.root == root.get()
    }

    /// Whether the value answers `asked` at its `place` and the first `n` of its dependencies still stand
    /// as they stood when it was sealed, with as many.
    pub(crate) fn is_valid(&self, noted: &Noted, place: u64, n: usize, asked: &[u8]) -> bool {
        self.has_root(noted.root)
            && noted.stamp(place, n) == Some(self.stamp ^ mark(self.aging))
            && same(self.asked, asked)
    }
}

/// Whether they are the same, most often none. An empty slice may point to nothing, and to compare what is
/// there takes a processor with masked loads 100 ns.
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

/// So that a value that ages is not taken for one that does not, nor the other way round.
fn mark(aging: Option<Aging>) -> u64 {
    if aging.is_some() { MIXER } else { 0 }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn number(reader: &mut Reader<'_>) -> Result<u64, CodecError> {
    let bytes = reader.take(8)?;
    Ok(bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

fn sized<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], CodecError> {
    let count = usize::try_from(reader.varint()?).map_err(|_| CodecError::Truncated)?;
    reader.take(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smallvec::smallvec;

    use super::*;

    fn token(n: u64) -> Token {
        Token::new(n).unwrap()
    }

    fn noted() -> Noted {
        Noted {
            root: token(7),
            generations: smallvec![Some(token(8)), None],
        }
    }

    fn key(text: &str) -> Key {
        text.to_owned().into()
    }

    const PLAIN: Packing = Packing {
        over: None,
        most: 1 << 20,
    };

    fn sealed_in(payload: &[u8], packing: Packing) -> Bytes {
        let cover = Cover {
            seal: token(1),
            root: token(7),
            stamp: noted().stamp(5, 1).unwrap(),
            asked: b"asked",
            own: None,
            present: true,
            aging: None,
        };
        seal(cover, payload, packing)
    }

    fn sealed() -> Bytes {
        sealed_in(b"payload", PLAIN)
    }

    fn payload<'a>(envelope: &Envelope<'a>) -> Option<Cow<'a, [u8]>> {
        envelope.payload(PLAIN).unwrap()
    }

    fn answers(bytes: &[u8]) -> bool {
        Envelope::open(bytes).is_ok_and(|envelope| envelope.is_valid(&noted(), 5, 1, b"asked"))
    }

    #[test]
    fn an_envelope_answers_what_it_was_sealed_for_and_nothing_else() {
        let bytes = sealed();
        let envelope = Envelope::open(&bytes).unwrap();
        assert_eq!(
            (envelope.seal, envelope.present, payload(&envelope)),
            (1, true, Some(Cow::Borrowed(&b"payload"[..])))
        );
        let valid = |noted: &Noted, id, n, asked: &[u8]| envelope.is_valid(noted, id, n, asked);
        assert!(valid(&noted(), 5, 1, b"asked"));
        assert!(!valid(&noted(), 6, 1, b"asked"));
        assert!(!valid(&noted(), 5, 1, b"Asked"));
        assert!(
            !valid(&noted(), 5, 2, b"asked"),
            "its second generation did not stand"
        );
        assert!(!valid(
            &Noted {
                root: token(8),
                ..noted()
            },
            5,
            1,
            b"asked"
        ));
        for generations in [
            smallvec![],
            smallvec![None, None],
            smallvec![Some(token(9)), None],
        ] {
            assert!(!valid(
                &Noted {
                    generations,
                    ..noted()
                },
                5,
                1,
                b"asked"
            ));
        }
        // More generations than it was sealed with.
        let three = Noted {
            generations: smallvec![Some(token(8)); 3],
            ..noted()
        };
        assert!(!valid(&three, 5, 3, b"asked"));
    }

    #[cfg(feature = "lz4")]
    #[test]
    fn a_compressed_value_is_as_another_in_all_but_its_length() {
        let long = [7; 5_000];
        let packing = Packing {
            over: Some(100),
            ..PLAIN
        };
        let plain = sealed_in(&long, PLAIN);
        let packed = sealed_in(&long, packing);
        assert!(packed.len() < plain.len() / 10);
        assert_eq!(packed[..24], plain[..24]);
        assert!(answers(&packed));
        let envelope = Envelope::open(&packed).unwrap();
        assert!(envelope.present);
        // Whoever reads it need not compress himself.
        assert_eq!(payload(&envelope).as_deref(), Some(&long[..]));
        let small = Packing {
            most: 4_999,
            ..packing
        };
        assert_eq!(envelope.payload(small), Ok(None));
    }

    #[test]
    fn the_same_dependencies_under_another_key_are_others() {
        let (a, b) = (key("soc:main:city:pk:1"), key("soc:main:city:pk:2"));
        assert_ne!(place_id(5, &a), place_id(5, &b));
        assert_ne!(place_id(5, &a), place_id(6, &a));
    }

    #[test]
    fn claims_of_more_than_there_is_are_errors() {
        let bytes = sealed();
        // Behind seal, root, stamp and kind: how long it is what was asked.
        for claim in [13u64, 100, 1 << 60, u64::MAX] {
            let mut claims = bytes[..25].to_vec();
            put_varint(&mut claims, claim);
            claims.extend_from_slice(&bytes[26..]);
            assert_eq!(
                Envelope::open(&claims).unwrap_err(),
                CodecError::Truncated,
                "{claim}"
            );
        }
    }

    #[test]
    fn a_stamp_tells_places_tokens_their_order_and_their_number_apart() {
        let stamp = |place, tokens: &[u64], n| {
            let generations = tokens.iter().map(|n| Token::new(*n)).collect();
            Noted {
                generations,
                ..noted()
            }
            .stamp(place, n)
        };
        let all = [
            stamp(5, &[1, 2], 2),
            stamp(6, &[1, 2], 2),
            stamp(5, &[2, 1], 2),
            stamp(5, &[1, 3], 2),
            stamp(5, &[3, 2], 2),
            stamp(5, &[3, 3], 2),
            stamp(5, &[1, 2], 1),
            stamp(5, &[1, 2, 3], 3),
            stamp(5, &[], 0),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(stamp(5, &[1, 2], 1), stamp(5, &[1, 0], 1));
        assert_eq!(stamp(5, &[1, 0], 2), None);
        assert_eq!(stamp(5, &[1], 2), None);
    }

    #[test]
    fn an_envelope_cut_short_is_none_and_one_with_a_changed_bit_is_another() {
        let bytes = sealed();
        let header = bytes.len() - b"payload".len();
        for end in 0..header {
            assert!(Envelope::open(&bytes[..end]).is_err(), "{end}");
        }
        for bit in 64..header * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let other = Envelope::open(&changed).is_ok_and(|envelope| {
                !envelope.present || !matches!(envelope.payload(PLAIN), Ok(Some(_)))
            });
            assert!(!answers(&changed) || other, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_answer_nothing(bytes: Vec<u8>) {
            prop_assert!(!answers(&bytes));
        }

        #[test]
        fn what_is_sealed_is_opened(
            generations in proptest::collection::vec(proptest::option::of(1u64..), 0..5),
            asked: Vec<u8>,
            own in proptest::option::of(proptest::collection::vec("[a-z:]*", 0..4)),
            payload: Vec<u8>,
            present: bool,
            aging: Option<(u32, u32)>,
        ) {
            let generations = generations.iter().map(|n| n.and_then(Token::new)).collect();
            let noted = Noted { generations, ..noted() };
            let stand = noted.generations.iter().take_while(|g| g.is_some()).count();
            let stamp = noted.stamp(5, stand).unwrap();
            let own = own.map(|own| own.into_iter().map(Key::from).collect::<Vec<_>>());
            let list = own.as_deref().map(listed);
            let millis = |n: u32| Duration::from_millis(n.into());
            let aging = aging.map(|(grace, took)| Aging {
                grace: millis(grace),
                took: millis(took),
            });
            let cover = Cover {
                seal: token(1),
                root: noted.root,
                stamp,
                asked: &asked,
                own: list.as_deref(),
                present,
                aging,
            };
            let bytes = seal(cover, &payload, PLAIN);
            let envelope = Envelope::open(&bytes).unwrap();
            prop_assert_eq!(own.as_ref().is_some_and(|own| envelope.depends_on(own)), own.is_some());
            prop_assert!(!envelope.depends_on(&[key("another")]));
            prop_assert_eq!(envelope.own().unwrap(), own.unwrap_or_default());
            prop_assert_eq!(envelope.aging, aging);
            let opened = envelope.payload(PLAIN).unwrap();
            prop_assert_eq!((opened.as_deref(), envelope.present), (Some(&payload[..]), present));
            prop_assert!(envelope.is_valid(&noted, 5, stand, &asked));
        }
    }
}
