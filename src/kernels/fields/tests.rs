use super::*;
use proptest::prelude::*;

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

fn layouts() -> impl Strategy<Value = Layout> {
    (prop::sample::select(vec![8u32, 16, 32, 64]), 0u32..=16, any::<bool>(), 0usize..3, 0u32..64, 0u16..500)
        .prop_map(|(element_bits, symbol_bits, has_sign, shared, low_zero_bits, base)| {
            let has_sign = has_sign && symbol_bits > 0;
            let shared_sign = if has_sign { [None, Some(false), Some(true)][shared] } else { None };
            let symbol_base = if symbol_bits > 8 { base } else { 0 };
            Layout { element_bits, symbol_bits, has_sign, shared_sign, low_zero_bits, symbol_base }
        })
        .prop_filter("widths add up", Layout::is_valid)
}

/// Makes the element keep the layout's promises.
fn conform(layout: &Layout, element: u64) -> u64 {
    let top = 1u64 << (layout.element_bits - 1);
    let element = match layout.shared_sign {
        Some(true) => element | top,
        Some(false) => element & !top,
        None => element,
    };
    element & u64::MAX.checked_shl(layout.low_zero_bits).unwrap_or(0)
}

proptest! {
    #[test]
    fn elements_come_back_on_every_isa(
        layout in layouts(),
        words in prop::collection::vec(any::<u64>(), 1..2200),
    ) {
        let element_bytes = layout.element_bits as usize / 8;
        let src: Vec<u8> = words
            .iter()
            .flat_map(|&word| conform(&layout, word).to_le_bytes()[..element_bytes].to_vec())
            .collect();
        let n_padded = words.len().next_multiple_of(GROUP_LEN);
        let mut reference = None;
        for isa in isas() {
            let mut symbols = vec![0xee; n_padded];
            let mut planes = vec![0xee; planes_len(&layout, n_padded)];
            split(isa, &layout, &src, &mut symbols, &mut planes);
            let reference = reference.get_or_insert_with(|| (symbols.clone(), planes.clone()));
            prop_assert!(*reference == (symbols.clone(), planes.clone()), "{isa:?} splits otherwise");
            let (bytes, packed) = planes.split_at(n_padded * layout.n_byte_planes());
            let byte_planes: Vec<&[u8]> = bytes.chunks_exact(n_padded).collect();
            let mut dst = vec![0x11; src.len()];
            prop_assert!(join(isa, &layout, &symbols, &byte_planes, packed, &mut dst).is_some());
            for (idx, (dst, src)) in
                dst.chunks_exact_mut(element_bytes).zip(src.chunks_exact(element_bytes)).enumerate()
            {
                let mut element = u64::read(&[src, &[0; 8]].concat());
                if layout.is_windowed() && symbols[idx] == OUTLIER {
                    element = layout.with_symbol(u64::read(&[&*dst, &[0; 8]].concat()), layout.symbol(element));
                    dst.copy_from_slice(&element.to_le_bytes()[..element_bytes]);
                }
                prop_assert!(*dst == *src, "{isa:?} element {idx} {element:x}");
            }
        }
    }
}

#[test]
fn join_refuses_lengths_that_do_not_fit() {
    let layout = Layout {
        element_bits: 16,
        symbol_bits: 9,
        has_sign: true,
        shared_sign: None,
        low_zero_bits: 0,
        symbol_base: 100,
    };
    let mut dst = [0; 128];
    assert!(join(Isa::Scalar, &layout, &[0; 64], &[], &[0; 56], &mut dst).is_some());
    assert!(join(Isa::Scalar, &layout, &[0; 64], &[], &[0; 55], &mut dst).is_none());
    assert!(join(Isa::Scalar, &layout, &[0; 128], &[], &[0; 112], &mut dst).is_none());
    assert!(join(Isa::Scalar, &layout, &[0; 64], &[&[0; 64]], &[0; 56], &mut dst).is_none());
}
