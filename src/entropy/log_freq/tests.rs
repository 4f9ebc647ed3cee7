use super::*;
use proptest::prelude::*;

/// Each half has what of the table is of its parity, and a decoder has room for it.
fn check_halves(freqs: &Freqs) -> Result<(), TestCaseError> {
    for (parity, half) in halves(freqs).iter().enumerate() {
        prop_assert_eq!(half.iter().map(|&freq| u32::from(freq)).sum::<u32>(), 4096);
        prop_assert!(half.iter().all(|&freq| freq < 4096));
        for (symbol, (&own, &freq)) in half.iter().zip(freqs).enumerate() {
            prop_assert_eq!(own > 0, freq > 0 && symbol % 2 == parity);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn tables_read_back_as_they_were_fitted(
        counts in prop::collection::vec(prop::collection::vec((any::<u8>(), 0u32..100_000), 0..120), 1..=2),
        halved in any::<bool>(),
    ) {
        let counts: Vec<[u32; 256]> = counts
            .iter()
            .map(|pairs| {
                let mut histogram = [0; 256];
                pairs.iter().for_each(|&(symbol, count)| histogram[usize::from(symbol)] = count);
                histogram
            })
            .collect();
        let kind = match counts.len() {
            2 => TableKind::Paired,
            _ if halved => TableKind::Halved,
            _ => TableKind::Single,
        };
        let fitted = Fitted::new(kind, &counts);
        for (freqs, counts) in fitted.freqs.iter().zip(&counts) {
            prop_assert_eq!(freqs.iter().map(|&freq| u32::from(freq)).sum::<u32>(), 4096);
            prop_assert!(freqs.iter().all(|&freq| freq < 4096));
            for symbol in 0..=255u8 {
                let coded = if fitted.range.contains(symbol) {
                    symbol
                } else if kind.shows_parity() && symbol % 2 == 1 {
                    ODD_ESCAPE
                } else {
                    ESCAPE
                };
                prop_assert!(counts[usize::from(symbol)] == 0 || freqs[usize::from(coded)] > 0);
            }
        }
        if kind == TableKind::Halved {
            check_halves(&fitted.freqs[0])?;
        }
        let mut bytes = Vec::new();
        let mut bits = BitWriter::new(&mut bytes);
        fitted.write(&mut bits);
        bits.finish();
        let mut reader = BitReader::new(&bytes);
        prop_assert_eq!(read(&mut reader, kind), Some((fitted.range, fitted.freqs)));
        prop_assert!(reader.is_exhausted());
    }

    #[test]
    fn any_bytes_are_a_table_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..3) {
        let kind = [TableKind::Single, TableKind::Halved, TableKind::Paired][kind];
        if let Some((_, freqs)) = read(&mut BitReader::new(&bytes), kind) {
            if kind == TableKind::Halved {
                check_halves(&freqs[0])?;
            }
            for freqs in freqs {
                prop_assert_eq!(freqs.iter().map(|&freq| u32::from(freq)).sum::<u32>(), 4096);
                prop_assert!(freqs.iter().all(|&freq| freq < 4096));
            }
        }
    }
}
