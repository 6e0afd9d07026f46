//! Which node of a cluster owns which key.

use super::super::address::Address;
use super::super::resp::Answer;

/// How many slots a cluster has.
const SLOTS: usize = 16_384;

/// A slot without an owner.
const NOBODY: u16 = u16::MAX;

/// Who owns which slot.
pub(super) struct Map {
    primaries: Vec<Address>,
    /// By slot, a position in `primaries`.
    owners: Box<[u16]>,
}

impl Map {
    /// The map in the answer to `CLUSTER SLOTS` that `teller` gave; none if it is no such answer, or
    /// names no owner at all.
    pub(super) fn read(answer: &Answer, teller: &Address) -> Option<Self> {
        let mut map = Self {
            primaries: Vec::new(),
            owners: vec![NOBODY; SLOTS].into(),
        };
        for range in array(answer)? {
            let [first, last, primary, ..] = array(range)? else {
                return None;
            };
            let (first, last) = (slot_number(first)?, slot_number(last)?);
            let position = map.position(node(primary, teller)?)?;
            map.owners.get_mut(first..=last)?.fill(position);
        }
        (!map.primaries.is_empty()).then_some(map)
    }

    fn position(&mut self, primary: Address) -> Option<u16> {
        let known = self.primaries.iter().position(|known| *known == primary);
        let position = known.unwrap_or_else(|| {
            self.primaries.push(primary);
            self.primaries.len() - 1
        });
        u16::try_from(position).ok().filter(|at| *at != NOBODY)
    }

    /// Whether every slot has the same owner in both.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let owner = |map: &Self, at: u16| map.primaries.get(usize::from(at)).cloned();
        let pairs = self.owners.iter().zip(&other.owners);
        let mut pairs: Vec<_> = pairs.map(|(own, others)| (*own, *others)).collect();
        pairs.dedup();
        let same = |(own, others): &(u16, u16)| owner(self, *own) == owner(other, *others);
        pairs.iter().all(same)
    }

    /// The nodes that own slots.
    pub(super) fn primaries(&self) -> &[Address] {
        &self.primaries
    }

    /// The node that owns the key's slot.
    pub(super) fn owner(&self, key: &str) -> Option<&Address> {
        let position = self.owners[usize::from(slot(key.as_bytes()))];
        self.primaries.get(usize::from(position))
    }
}

fn array(value: &Answer) -> Option<&[Answer]> {
    match value {
        Answer::Array(items) => Some(items),
        _ => None,
    }
}

fn slot_number(value: &Answer) -> Option<usize> {
    match value {
        Answer::Int(number) => usize::try_from(*number).ok().filter(|slot| *slot < SLOTS),
        _ => None,
    }
}

fn node(value: &Answer, teller: &Address) -> Option<Address> {
    let [host, Answer::Int(port), ..] = array(value)? else {
        return None;
    };
    let host = match host {
        Answer::Text(host) => std::str::from_utf8(host).ok()?,
        Answer::Nil => "",
        _ => return None,
    };
    Address::new(host, u16::try_from(*port).ok()?, teller)
}

/// The slot of a key: of what stands in its first braces, if anything does.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|byte| *byte == b'{')? + 1;
        let length = key[open..].iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &key[open..open + length])
    };
    // The remainder fits.
    crc16(tag().unwrap_or(key)) % SLOTS as u16
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::escape;

    fn teller() -> Address {
        Address {
            host: "127.0.0.1".into(),
            port: 7000,
        }
    }

    fn range(first: i64, last: i64, host: Answer, port: i64) -> Answer {
        let node = Answer::Array(vec![host, Answer::Int(port), Answer::Nil]);
        Answer::Array(vec![
            Answer::Int(first),
            Answer::Int(last),
            node.clone(),
            node,
        ])
    }

    fn bulk(text: &'static str) -> Answer {
        Answer::Text(text.into())
    }

    #[test]
    fn slots_are_those_of_the_servers() {
        // From the specification, and `CLUSTER KEYSLOT`.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"123456789"), 12_739);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b""), 0);
    }

    #[test]
    fn what_stands_in_the_first_braces_decides() {
        assert_eq!(slot(b"{user}:1"), slot(b"user"));
        assert_eq!(slot(b"a{user}b{other}"), slot(b"user"));
        assert_eq!(slot(b"{}user"), crc16(b"{}user") % 16_384);
        assert_eq!(slot(b"{user"), crc16(b"{user") % 16_384);
        assert_eq!(slot(b"a}{user}"), slot(b"user"));
    }

    #[test]
    fn the_keys_of_one_entity_lie_in_all_parts_of_the_cluster() {
        assert_eq!(escape("{city}"), "%7Bcity%7D", "no key has braces");
        let mut count = [0_u32; 8];
        for id in 0..8_000 {
            let slot = slot(format!("soc:main:city:pk:{id}").as_bytes());
            count[usize::from(slot) / (SLOTS / 8)] += 1;
        }
        assert!(count.iter().all(|n| (800..1_200).contains(n)), "{count:?}");
    }

    #[test]
    fn a_map_says_who_owns_a_slot() {
        let answer = Answer::Array(vec![
            range(0, 8_191, Answer::Nil, 7000),
            range(8_192, 8_192, bulk("10.0.0.2"), 7001),
            range(8_194, 16_383, bulk(""), 7000),
        ]);
        let map = Map::read(&answer, &teller()).unwrap();
        let named: Vec<_> = map.primaries().iter().map(ToString::to_string).collect();
        assert_eq!(named, ["127.0.0.1:7000", "10.0.0.2:7001"]);
        assert_eq!(map.owner("foo"), Some(&teller()));
        let key_in = |slot_wanted: u16| {
            let mut keys = (0..).map(|n: u32| n.to_string());
            keys.find(|key| slot(key.as_bytes()) == slot_wanted)
                .unwrap()
        };
        assert_eq!(map.owner(&key_in(8_192)).unwrap().port, 7001);
        assert_eq!(map.owner(&key_in(8_193)), None);

        let order = Answer::Array(vec![
            range(8_192, 8_192, bulk("10.0.0.2"), 7001),
            range(0, 8_191, Answer::Nil, 7000),
            range(8_194, 16_383, bulk(""), 7000),
        ]);
        assert!(Map::read(&order, &teller()).unwrap().agrees_with(&map));
        let other = Answer::Array(vec![
            range(0, 8_191, Answer::Nil, 7000),
            range(8_192, 8_193, bulk("10.0.0.2"), 7001),
            range(8_194, 16_383, bulk(""), 7000),
        ]);
        assert!(!Map::read(&other, &teller()).unwrap().agrees_with(&map));
    }

    #[test]
    fn an_answer_of_another_shape_is_no_map() {
        let wrong = [
            Answer::Nil,
            Answer::Array(vec![]),
            Answer::Array(vec![Answer::Int(1)]),
            Answer::Array(vec![range(0, 16_384, bulk("a"), 7000)]),
            Answer::Array(vec![range(9, 1, bulk("a"), 7000)]),
            Answer::Array(vec![range(-1, 1, bulk("a"), 7000)]),
            Answer::Array(vec![range(0, 1, bulk("a"), 70_000)]),
            Answer::Array(vec![range(0, 1, Answer::Int(1), 7000)]),
        ];
        for answer in wrong {
            assert!(Map::read(&answer, &teller()).is_none(), "{answer:?}");
        }
    }
}
