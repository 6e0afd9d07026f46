//! A hash that is the same in every process: it names queries in the store.

/// The first half of the key: "sea-orm-", little-endian.
const KEY_0: u64 = u64::from_le_bytes(*b"sea-orm-");
/// The second half of the key.
const KEY_1: u64 = u64::from_le_bytes(*b"cache-v1");

/// Hashes `bytes` to 128 bits, with SipHash-2-4 under a fixed key.
///
/// Two queries with one hash would share a result; by chance that is one in 2^64 once there are
/// 2^32 queries. The key is public, so this is no defence against a caller who looks for
/// collisions on purpose.
pub fn stable_hash128(bytes: &[u8]) -> u128 {
    siphash128(KEY_0, KEY_1, bytes)
}

/// SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF",
/// 2012; the wide output is that of the authors' reference code).
fn siphash128(k0: u64, k1: u64, bytes: &[u8]) -> u128 {
    let mut state = State([
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ]);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        state.absorb(u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    last[7] = bytes.len() as u8;
    state.absorb(u64::from_le_bytes(last));
    let low = state.squeeze(2, 0xee);
    let high = state.squeeze(1, 0xdd);
    u128::from(high) << 64 | u128::from(low)
}

struct State([u64; 4]);

impl State {
    fn round(&mut self) {
        let [a, b, c, d] = &mut self.0;
        *a = a.wrapping_add(*b);
        *c = c.wrapping_add(*d);
        *b = b.rotate_left(13) ^ *a;
        *d = d.rotate_left(16) ^ *c;
        *a = a.rotate_left(32);
        *c = c.wrapping_add(*b);
        *a = a.wrapping_add(*d);
        *b = b.rotate_left(17) ^ *c;
        *d = d.rotate_left(21) ^ *a;
        *c = c.rotate_left(32);
    }

    fn absorb(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }

    /// Marks the lane, mixes four times and gives half of the hash.
    fn squeeze(&mut self, lane: usize, mark: u64) -> u64 {
        self.0[lane] ^= mark;
        (0..4).for_each(|_| self.round());
        self.0.iter().fold(0, |hash, lane| hash ^ lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `openssl mac -macopt size:16 SIPHASH` has them under the key 00 01 .. 0f for the bytes
    /// 00 01 .. of each length.
    const REFERENCE: [(usize, u128); 7] = [
        (0, 0xA3817F04BA25A8E66DF67214C7550293),
        (1, 0xDA87C1D86B99AF44347659119B22FC45),
        (2, 0x8177228DA4A45DC7FCA38BDEF60AFFE4),
        (7, 0xA1F1EBBED8DBC153C0B84AA61FF08239),
        (8, 0x3B62A9BA6258F5610F83E264F31497B4),
        (15, 0x5493E99933B0A8117E08EC0F97CFC3D9),
        (63, 0x5150D1772F50834A503E069A973FBD7C),
    ];

    #[test]
    fn it_is_siphash_2_4_128() {
        let half = |from: u8| u64::from_le_bytes(std::array::from_fn(|i| from + i as u8));
        for (len, expected) in REFERENCE {
            let bytes: Vec<u8> = (0..len as u8).collect();
            let hash = siphash128(half(0), half(8), &bytes);
            assert_eq!(hash.to_le_bytes(), expected.to_be_bytes(), "{len}");
        }
    }

    #[test]
    fn it_is_the_same_in_every_build() {
        let stable: u128 = 0x0240916A5AED2956A2AE7E526AA7A253;
        assert_eq!(stable_hash128(b"SELECT 1"), stable.swap_bytes());
        assert_ne!(stable_hash128(b""), stable_hash128(b"\0"));
    }
}
