use super::*;

fn formats() -> [(FloatFormat, Dtype); 4] {
    [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16].map(|dtype| (FloatFormat::of(dtype).unwrap(), dtype))
}

/// Magnitudes all over a format, and around every power of two.
fn magnitudes(format: FloatFormat) -> Vec<u64> {
    let mut state = 9u64;
    let mut found = vec![0, 1, format.infinity() - 1, format.infinity(), format.sign() - 1];
    for log2 in 0..=format.max_step() {
        let power = format.power(log2);
        found.extend([power - 1, power, power + 1]);
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        found.push(state % format.sign());
    }
    found
}

fn to_bytes(format: FloatFormat, magnitudes: &[u64]) -> Vec<u8> {
    let both = magnitudes.iter().flat_map(|&magnitude| [magnitude, magnitude | format.sign()]);
    both.flat_map(|bits| bits.to_le_bytes()[..format.element_bytes].to_vec()).collect()
}

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

/// Steps of which there are few enough to try all pairs.
fn steps(format: FloatFormat) -> Vec<u32> {
    let (m, most) = (format.mantissa_bits, format.max_step());
    let mut steps =
        vec![0, 1, 2, m - 1, m, m + 1, m + 5, most / 2, most / 2 + 3, most / 2 + 24, most - 1, most];
    steps.retain(|step| *step <= most);
    steps
}

#[test]
fn powers_are_in_order_and_end_in_infinity() {
    for (format, _) in formats() {
        for log2 in 0..format.max_step() {
            assert!(format.power(log2) < format.power(log2 + 1));
        }
        assert_eq!(format.power(format.max_step()), format.infinity());
        assert_eq!(format.power(u32::MAX), format.infinity());
        assert!(Grid::new(format, format.max_step() + 1, [128; 2]).is_none());
    }
    assert_eq!(formats()[1].0.step_value(149), 1.0);
    assert_eq!(formats()[2].0.step_value(0), 2f64.powi(-24));
}

#[test]
fn a_cell_is_what_division_by_the_step_gives() {
    let (format, _) = formats()[1];
    // Steps of 2^-20 and 2^-149.
    for step in [129, 0] {
        let grid = Grid::new(format, step, [128; 2]).unwrap();
        for cell in [0u32, 1, 2, 3, 4, 5, 255, 256, 257, (1 << 23) - 1, 1 << 23] {
            for fraction in [0.0, 0.25, 0.999] {
                let x = (f64::from(cell) + if cell < 1 << 15 && step > 23 { fraction } else { 0.0 })
                    * format.step_value(step);
                let mut found = [0];
                indices(Isa::Scalar, &grid, &(-x as f32).to_le_bytes(), &mut found);
                assert_eq!(found[0], -(cell as i32), "{x}");
            }
        }
    }
}

#[test]
fn indices_name_the_cells_and_values_lie_within_them() {
    for (format, dtype) in formats() {
        let bytes = to_bytes(format, &magnitudes(format));
        let n = bytes.len() / format.element_bytes;
        for step in steps(format) {
            for centers in [[128, 128], [0, 255], [255, 0]] {
                let grid = Grid::new(format, step, centers).unwrap();
                let mut first = None;
                for isa in isas() {
                    let (mut found, mut again) = (vec![0; n], vec![0; n]);
                    indices(isa, &grid, &bytes, &mut found);
                    let mut rebuilt = bytes.clone();
                    values(isa, &grid, &found, &mut rebuilt).unwrap();
                    indices(isa, &grid, &rebuilt, &mut again);
                    assert_eq!(found, again, "{dtype:?} {step} {isa:?}");
                    let mut offsets = Offsets::default();
                    offsets.measure(isa, &grid, &bytes);
                    let counts = (zero_bits(isa, &grid, &bytes), count_kept(isa, format, &bytes));
                    let result = (found, rebuilt, offsets, counts);
                    let first = first.get_or_insert_with(|| result.clone());
                    assert!(*first == result, "{dtype:?} {step} {isa:?}");
                }
            }
        }
    }
}

#[test]
fn refining_gives_the_finer_layer_and_at_last_the_elements() {
    for (format, dtype) in formats() {
        let bytes = to_bytes(format, &magnitudes(format));
        let n = bytes.len() / format.element_bytes;
        let layer = |grid: &Grid| {
            let isa = Isa::Scalar;
            let (mut found, mut rebuilt) = (vec![0; n], bytes.clone());
            indices(isa, grid, &bytes, &mut found);
            values(isa, grid, &found, &mut rebuilt).unwrap();
            rebuilt
        };
        for before in steps(format).into_iter().map(|step| Grid::new(format, step, [100, 130]).unwrap()) {
            let finer = steps(format).into_iter().filter(|step| *step <= before.step());
            let after = finer.map(|step| Grid::new(format, step, [99, 127])).chain([None]);
            for after in after {
                let refinement = Refinement { before, after, zero_bits: 0 };
                let (mut widths, mut same, mut rests) = (vec![0; n], vec![0; n], vec![0; n]);
                let isa = Isa::Scalar;
                refinement.widths(isa, &bytes, &mut widths);
                refinement.rests(isa, &bytes, &mut rests);
                let mut rebuilt = layer(&before);
                for isa in isas() {
                    refinement.widths(isa, &rebuilt, &mut same);
                    assert_eq!(widths, same, "{dtype:?} {isa:?}");
                    let mut same = vec![0; n];
                    refinement.rests(isa, &bytes, &mut same);
                    assert_eq!(rests, same, "{dtype:?} {isa:?}");
                }
                for (rest, width) in rests.iter().zip(&widths).filter(|(_, width)| **width != IN_ZERO) {
                    assert!(*width <= 52 && rest >> width == 0);
                }
                let coarse = rebuilt.clone();
                refinement.place(isa, &rests, &mut rebuilt);
                for isa in isas() {
                    let mut same = coarse.clone();
                    refinement.place(isa, &rests, &mut same);
                    assert!(rebuilt == same, "{dtype:?} {isa:?}");
                }
                let expected = after.map_or_else(|| bytes.clone(), |grid| layer(&grid));
                let elements =
                    rebuilt.chunks(format.element_bytes).zip(expected.chunks(format.element_bytes));
                for ((found, expected), width) in elements.zip(&widths) {
                    assert!(*width == IN_ZERO || found == expected, "{dtype:?} {before:?} {after:?}");
                }
            }
        }
    }
}

#[test]
fn any_bits_and_indices_are_taken_without_a_panic() {
    for (format, _) in formats() {
        let any: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let n = any.len() / format.element_bytes;
        for step in steps(format) {
            let grid = Grid::new(format, step, [0, 255]).unwrap();
            for (at, index) in
                [i32::MIN, i32::MAX, i32::MIN + 1, 1 << 24, -(1 << 24), -1, 1].iter().enumerate()
            {
                let mut bytes = any.clone();
                let mut list = vec![0; n];
                list[at] = *index;
                let found = values(Isa::Scalar, &grid, &list, &mut bytes);
                for isa in isas() {
                    assert_eq!(values(isa, &grid, &list, &mut any.clone()), found);
                }
                assert!(found.is_some() || index.unsigned_abs() > 1 || step == format.max_step());
            }
            for zero_bits in [0, 5, 63] {
                for after in [None, Grid::new(format, step / 2, [255, 0])] {
                    let refinement = Refinement { before: grid, after, zero_bits };
                    let mut bytes = any.clone();
                    refinement.place(Isa::Scalar, &vec![u64::MAX; n], &mut bytes);
                    for isa in isas() {
                        let mut same = any.clone();
                        refinement.place(isa, &vec![u64::MAX; n], &mut same);
                        assert!(bytes == same, "{isa:?}");
                    }
                }
            }
        }
    }
}
