//! Compressed payloads: the length of the encoded value, and a block of LZ4.

use std::borrow::Cow;

use crate::codec::{CodecError, Reader, put_varint};

/// Which payloads are compressed, and how large they may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    /// Longer ones are compressed.
    pub(crate) over: Option<usize>,
    /// Longer ones are neither compressed nor decompressed: so nothing is stored that this process
    /// would not read, and a claim in the store cannot make it reserve more.
    pub(crate) most: usize,
}

/// No block of LZ4 is this many times shorter than what it holds.
const HIGHEST_RATIO: usize = 255;

impl Packing {
    /// The payload as it is stored: owned if it is compressed.
    pub(super) fn pack(self, payload: &[u8]) -> Cow<'_, [u8]> {
        let long = self.over.is_some_and(|over| payload.len() > over);
        if !long || payload.len() > self.most {
            return Cow::Borrowed(payload);
        }
        let mut packed = Vec::new();
        put_varint(&mut packed, payload.len() as u64);
        if !compress(&mut packed, payload) || packed.len() >= payload.len() {
            return Cow::Borrowed(payload);
        }
        Cow::Owned(packed)
    }

    /// The payload as it was; `None` where it cannot be read here.
    pub(super) fn unpack(self, packed: &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        let mut reader = Reader::new(packed);
        let length = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        if length > self.most {
            return Ok(None);
        }
        let block = reader.rest();
        if length > block.len().saturating_mul(HIGHEST_RATIO) {
            return Err(CodecError::Truncated);
        }
        decompress(block, length)
    }
}

/// Appends a block; `false` where this build cannot.
#[cfg(feature = "lz4")]
fn compress(out: &mut Vec<u8>, payload: &[u8]) -> bool {
    out.extend_from_slice(&lz4_flex::block::compress(payload));
    true
}

#[cfg(feature = "lz4")]
fn decompress(block: &[u8], length: usize) -> Result<Option<Vec<u8>>, CodecError> {
    let mut payload = vec![0; length];
    match lz4_flex::block::decompress_into(block, &mut payload) {
        Ok(written) if written == length => Ok(Some(payload)),
        _ => Err(CodecError::Corrupt("a compressed value is damaged")),
    }
}

#[cfg(not(feature = "lz4"))]
fn compress(_: &mut Vec<u8>, _: &[u8]) -> bool {
    false
}

#[cfg(not(feature = "lz4"))]
fn decompress(_: &[u8], _: usize) -> Result<Option<Vec<u8>>, CodecError> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACKING: Packing = Packing {
        over: Some(100),
        most: 10_000,
    };

    fn claim(length: u64, block: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        put_varint(&mut packed, length);
        packed.extend_from_slice(block);
        packed
    }

    #[test]
    fn without_a_threshold_nothing_is_compressed() {
        let packing = Packing {
            over: None,
            ..PACKING
        };
        assert!(matches!(packing.pack(&[7; 5_000]), Cow::Borrowed(_)));
    }

    #[test]
    fn a_claim_of_more_than_may_be_cached_is_not_read_and_reserves_nothing() {
        for length in [10_001, 1 << 20, 1 << 60, u64::MAX] {
            assert_eq!(PACKING.unpack(&claim(length, &[0; 100])), Ok(None));
        }
    }

    #[test]
    fn a_claim_that_no_block_of_this_length_can_fulfil_is_truncated() {
        for (length, block) in [(1, 0), (256, 1), (10_000, 39)] {
            let packed = claim(length, &vec![0; block]);
            assert_eq!(PACKING.unpack(&packed), Err(CodecError::Truncated));
        }
        assert_eq!(PACKING.unpack(&[]), Err(CodecError::Truncated));
    }

    #[cfg(not(feature = "lz4"))]
    #[test]
    fn without_the_feature_nothing_is_compressed_and_what_is_cannot_be_read() {
        assert!(matches!(PACKING.pack(&[7; 5_000]), Cow::Borrowed(_)));
        assert_eq!(PACKING.unpack(&claim(5_000, &[0; 100])), Ok(None));
    }

    #[cfg(feature = "lz4")]
    mod lz4 {
        use super::*;

        fn packed(payload: &[u8]) -> Option<Vec<u8>> {
            match PACKING.pack(payload) {
                Cow::Owned(packed) => Some(packed),
                Cow::Borrowed(_) => None,
            }
        }

        #[test]
        fn only_what_is_longer_than_the_threshold_is_compressed() {
            assert_eq!(packed(&[7; 100]), None);
            let packed = packed(&[7; 101]).unwrap();
            assert!(packed.len() < 30, "{}", packed.len());
            assert_eq!(PACKING.unpack(&packed), Ok(Some(vec![7; 101])));
        }

        #[test]
        fn what_does_not_shrink_stays_plain() {
            let mut random = fastrand::Rng::with_seed(1);
            let noise: Vec<u8> = (0..5_000).map(|_| random.u8(..)).collect();
            assert_eq!(packed(&noise), None);
        }

        #[test]
        fn what_may_not_be_cached_is_not_compressed_so_that_all_that_is_can_be_read() {
            assert!(packed(&[7; 10_000]).is_some());
            assert_eq!(packed(&[7; 10_001]), None);
        }

        #[test]
        fn another_length_than_the_claimed_one_is_corrupt() {
            let block = lz4_flex::block::compress(&[7; 5_000]);
            for length in [4_999, 5_001] {
                let unpacked = PACKING.unpack(&claim(length, &block));
                assert!(matches!(unpacked, Err(CodecError::Corrupt(_))), "{length}");
            }
        }

        proptest! {
            #[test]
            fn what_is_packed_is_unpacked(
                words in proptest::collection::vec("[ab]{1,3}", 50..1_000),
            ) {
                let payload = words.concat();
                let packed = PACKING.pack(payload.as_bytes());
                if let Cow::Owned(packed) = &packed {
                    prop_assert!(packed.len() < payload.len());
                    prop_assert_eq!(PACKING.unpack(packed), Ok(Some(payload.into_bytes())));
                }
            }

            #[test]
            fn damaged_blocks_never_panic_and_give_no_more_than_was_claimed(
                length in 0u64..20_000,
                block: Vec<u8>,
                at: prop::sample::Index,
                byte: u8,
            ) {
                let mut good = lz4_flex::block::compress(&[&block[..], &block, &[7; 300]].concat());
                let at = at.index(good.len());
                good[at] = byte;
                for block in [block, good] {
                    if let Ok(Some(payload)) = PACKING.unpack(&claim(length, &block)) {
                        prop_assert_eq!(payload.len() as u64, length);
                    }
                }
            }
        }
    }
}
