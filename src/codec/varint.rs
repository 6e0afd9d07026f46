//! Numbers of variable length (LEB128): seven bits in each byte, the lowest first; the highest bit says
//! that another byte follows. Those of up to eight bytes are made in one word.

use super::CodecError;

/// The highest bit of each byte.
const MORE: u64 = 0x8080_8080_8080_8080;

/// Appends a number that takes more than one byte.
pub fn put_long(out: &mut Vec<u8>, mut n: u64) {
    if n < 1 << 56 {
        let bits = 64 - (n | 1).leading_zeros() as usize;
        let length = bits.div_ceil(7);
        let word = spread(n) | MORE & ((1 << (8 * (length - 1))) - 1);
        let start = out.len();
        out.extend_from_slice(&word.to_le_bytes());
        out.truncate(start + length);
        return;
    }
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// A number and its length, if both are to be found in the next eight bytes.
#[inline]
pub fn take_word(bytes: &[u8]) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(*bytes.first_chunk()?);
    let ends = !word & MORE;
    if ends == 0 {
        return None;
    }
    let length = ends.trailing_zeros() as usize / 8 + 1;
    let word = word & (u64::MAX >> (64 - 8 * length));
    Some((gather(word & !MORE), length))
}

/// A number and its length.
#[inline(never)]
pub fn take_bytewise(bytes: &[u8]) -> Result<(u64, usize), CodecError> {
    let mut n = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        n |= u64::from(byte & 0x7F) << (7 * at);
        match byte {
            // Of the tenth byte, one bit has room.
            2.. if at == 9 => break,
            0..0x80 => return Ok((n, at + 1)),
            _ => {}
        }
    }
    match bytes.len() {
        0..10 => Err(CodecError::Truncated),
        _ => Err(CodecError::Corrupt("a number is too large")),
    }
}

/// The low 56 bits, seven to each byte.
#[inline]
fn spread(n: u64) -> u64 {
    let n = n & 0x0FFF_FFFF | n << 4 & 0x0FFF_FFFF_0000_0000;
    let n = n & 0x0000_3FFF_0000_3FFF | n << 2 & 0x3FFF_0000_3FFF_0000;
    n & 0x007F_007F_007F_007F | n << 1 & 0x7F00_7F00_7F00_7F00
}

/// The reverse.
#[inline]
fn gather(n: u64) -> u64 {
    let n = n & 0x007F_007F_007F_007F | n >> 1 & 0x3F80_3F80_3F80_3F80;
    let n = n & 0x0000_3FFF_0000_3FFF | n >> 2 & 0x0FFF_C000_0FFF_C000;
    n & 0x0FFF_FFFF | n >> 4 & 0x00FF_FFFF_F000_0000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reference(mut n: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out
    }

    fn check(n: u64) {
        let expected = reference(n);
        let mut out = b"before".to_vec();
        put_long(&mut out, n);
        assert_eq!(out[6..], expected, "{n:#x}");
        for after in [&b""[..], b"\xFFafter after"] {
            let bytes = [&expected[..], after].concat();
            let taken = (n, expected.len());
            assert_eq!(take_bytewise(&bytes), Ok(taken), "{n:#x}");
            let in_a_word = expected.len() <= 8 && bytes.len() >= 8;
            assert_eq!(take_word(&bytes), in_a_word.then_some(taken), "{n:#x}");
        }
        for end in 0..expected.len() {
            let cut = take_bytewise(&expected[..end]);
            assert_eq!(cut, Err(CodecError::Truncated));
        }
    }

    #[test]
    fn every_length_is_right_at_its_ends() {
        for bits in 0..64 {
            for n in [1u64 << bits, (1 << bits) - 1, u64::MAX >> bits] {
                check(n);
            }
        }
    }

    #[test]
    fn more_than_sixty_four_bits_are_corrupt() {
        let corrupt = Err(CodecError::Corrupt("a number is too large"));
        for last in [2, 0x7F, 0x80, 0x81, 0xFF] {
            let bytes = [&[0xFF; 9][..], &[last], b"after"].concat();
            assert_eq!(take_bytewise(&bytes), corrupt, "{last}");
            assert_eq!(take_word(&bytes), None);
        }
    }

    proptest! {
        #[test]
        fn numbers_are_what_they_are_bytewise(n: u64, shift in 0u32..64) {
            check(n >> shift);
        }

        #[test]
        fn arbitrary_bytes_are_the_number_that_they_are_bytewise(bytes: Vec<u8>) {
            if let Some(taken) = take_word(&bytes) {
                prop_assert_eq!(take_bytewise(&bytes), Ok(taken));
            }
        }
    }
}
