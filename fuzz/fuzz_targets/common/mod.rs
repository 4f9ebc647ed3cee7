//! What several targets use.
#![allow(dead_code, reason = "each target uses some of it")]

use std::cell::RefCell;

use alcm::kernels::Isa;
use alcm::limits::MAX_BLOCK_BYTES;
use alcm::stage::{BlockDecoder, Coding};
use alcm::{Dtype, ErrorKind};

/// The instruction sets of this machine.
pub fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

/// The dtype that a byte chooses.
pub fn dtype(choice: u8) -> Dtype {
    let dtypes: Vec<_> = Dtype::all().collect();
    dtypes[usize::from(choice) % dtypes.len()]
}

/// The coding that a byte chooses, by its id on the wire; stored instead of a reference, which is no matter of a block
/// decoder.
pub fn coding(choice: u8) -> Coding {
    let codings: Vec<_> = Coding::all().collect();
    match codings[usize::from(choice) % codings.len()] {
        Coding::Reference => Coding::Stored,
        coding => coding,
    }
}

thread_local! {
    /// A decoder for each instruction set, used for all inputs as a worker thread does: what one input leaves in its
    /// scratch memory must not show in the next. Making them anew would take most of the time.
    static DECODERS: RefCell<Vec<BlockDecoder>> = RefCell::new(isas().map(BlockDecoder::new).collect());
}

/// Decodes `payload` on every instruction set into clean and dirty buffers, which must agree; gives the bytes.
pub fn decode_everywhere(coding: Coding, dtype: Dtype, payload: &[u8], n_bytes: usize) -> Option<Vec<u8>> {
    assert!(n_bytes <= MAX_BLOCK_BYTES);
    let mut first: Option<Result<Vec<u8>, ErrorKind>> = None;
    DECODERS.with_borrow_mut(|decoders| {
        for decoder in decoders {
            for dirt in [0, 0xff] {
                let mut decoded = vec![dirt; n_bytes];
                let result = decoder.decode(coding, dtype, payload, &mut decoded);
                let result = result.map(|()| decoded).map_err(|error| error.kind());
                let first = first.get_or_insert_with(|| result.clone());
                assert!(*first == result, "{decoder:?} with dirt {dirt:#x} decodes otherwise");
            }
        }
    });
    match first? {
        Ok(decoded) => Some(decoded),
        Err(kind) => {
            assert_eq!(kind, ErrorKind::Corrupt);
            None
        }
    }
}

/// Makes a block out of `before`, another one, on every instruction set, which must agree; gives the bytes.
pub fn change_everywhere(
    before: &[u8],
    change: impl Fn(&mut BlockDecoder, &mut [u8]) -> alcm::Result<()>,
) -> Option<Vec<u8>> {
    let mut first: Option<Result<Vec<u8>, ErrorKind>> = None;
    DECODERS.with_borrow_mut(|decoders| {
        for decoder in decoders {
            let mut block = before.to_vec();
            let result = change(decoder, &mut block);
            let result = result.map(|()| block).map_err(|error| error.kind());
            let first = first.get_or_insert_with(|| result.clone());
            assert!(*first == result, "{decoder:?} makes another block");
        }
    });
    match first? {
        Ok(block) => Some(block),
        Err(kind) => {
            assert_eq!(kind, ErrorKind::Corrupt);
            None
        }
    }
}
