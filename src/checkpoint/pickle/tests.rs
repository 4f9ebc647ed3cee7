use super::*;
use proptest::prelude::*;

fn parse(bytes: &[u8]) -> Pickle<'_> {
    Pickle::parse(bytes, &Limits::default())
}

#[test]
fn storages_are_found_with_the_rows_of_their_largest_tensors() {
    let bytes = tensors_pickle(&[
        ("FloatStorage", "0", &[2, 1, 5, 1], &[5, 99, 1, 0]),
        ("HalfStorage", "94743424565712", &[7, 9], &[1, 7]),
        ("BFloat16Storage", "2", &[4, 8], &[8, 1]),
        ("BFloat16Storage", "2", &[100], &[1]),
        ("BFloat16Storage", "2", &[9], &[1]),
        ("LongStorage", "3", &[], &[]),
        ("ComplexDoubleStorage", "4", &[6, 8], &[8, 1]),
        ("NewStorage", "5", &[3, 3], &[3, 1]),
    ]);
    let long = [&bytes[..], b"what follows"].concat();
    let found = parse(&long);
    assert_eq!(found.len, Some(bytes.len()));
    let seen: Vec<_> = found
        .storages
        .iter()
        .map(|(key, storage)| (*key, storage.dtype, storage.element_bytes, storage.row_len))
        .collect();
    let expected: [(&[u8], _, _, _); 6] = [
        (b"0", Some(Dtype::F32), Some(4), 5),
        (b"2", Some(Dtype::Bf16), Some(2), 0),
        (b"3", Some(Dtype::I64), Some(8), 0),
        (b"4", None, Some(16), 0),
        (b"5", None, None, 0),
        (b"94743424565712", Some(Dtype::F16), Some(2), 0),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn later_protocols_untyped_storages_and_subclasses() {
    let storage: &[u8] = b"(\x8c\x07storage\x8c\x0dtorch.storage\x8c\x0eUntypedStorage\x93\x94\
        \x8c\x010\x8c\x03cpu\x8a\x02\x88\x13tQ";
    let rebuild: &[u8] = b"\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v3\x93";
    let dtype: &[u8] = b"ctorch\nfloat8_e5m2\n";
    let arguments = [b"(", storage, b"K\0K\x0aK\x05\x86K\x05K\x01\x86\x89}", dtype, b"t"].concat();
    let call = [rebuild, &arguments, b"R"].concat();
    let subclass: &[u8] = b"ctorch._tensor\n_rebuild_from_type_v2\n";
    let of_subclass = [subclass, b"(", rebuild, b"N", &arguments, b"}tR"].concat();
    for tensor in [call, of_subclass] {
        let bytes = [b"\x80\x04\x95\0\0\0\0\0\0\0\0]", &tensor[..], b"\x94a."].concat();
        let found = parse(&bytes);
        assert_eq!(found.len, Some(bytes.len()));
        let storage = found.storages[&b"0"[..]];
        assert_eq!((storage.dtype, storage.element_bytes), (Some(Dtype::F8E5m2), Some(1)));
        assert_eq!(storage.row_len, 5);
    }
}

#[test]
fn lists_of_texts() {
    let bytes = b"\x80\x02]q\0(X\x01\0\0\0aq\x01U\x02bceX\x01\0\0\0dae.";
    assert_eq!(parse(bytes).len, None);
    let bytes = b"\x80\x02]q\0(X\x01\0\0\0aq\x01U\x02bceX\x01\0\0\0da.";
    let found = parse(bytes);
    assert_eq!(found.appended, [&b"a"[..], b"bc", b"d"]);
    assert_eq!(found.len, Some(bytes.len()));
}

#[test]
fn what_is_not_understood_ends_the_scan() {
    let bytes = tensors_pickle(&[("FloatStorage", "0", &[7], &[1]), ("HalfStorage", "1", &[7], &[1])]);
    for end in 0..bytes.len() {
        assert_eq!(parse(&bytes[..end]).len, None);
    }
    // Halfway, an opcode of a protocol to come.
    let mut broken = bytes[..bytes.len() * 3 / 4].to_vec();
    broken.push(0xee);
    assert_eq!(parse(&broken).storages.len(), 1);
    let underflows: [&[u8]; 10] =
        [b"0", b"K\x01(0", b"t", b"(K\x01(\x85", b"R", b"a", b"(a", b"e", b"K\x01(K\x02s", b"h\x07"];
    for pickle in underflows {
        assert_eq!(parse(&[pickle, b"."].concat()).len, None, "{pickle:?}");
    }
}

#[test]
fn depth_and_sharing_take_no_more_than_the_limits_allow() {
    let limits = Limits { tensors: 1000, ..Limits::default() };
    let deep = [&b")"[..], &[0x85; 100_000], b"."].concat();
    assert_eq!(Pickle::parse(&deep, &limits).len, None);
    assert_eq!(parse(&deep).len, Some(deep.len()));
    // A tuple of two of the last one, over and over, is 2^1000 items if written out.
    let doubled: Vec<u8> = [0x32, 0x86].repeat(1000);
    let bytes = [b")", &doubled[..], b"."].concat();
    assert_eq!(Pickle::parse(&bytes, &limits).len, Some(bytes.len()));
    for many in [vec![b'N'; 20_000], vec![b'('; 20_000]] {
        assert_eq!(Pickle::parse(&[&many[..], b"."].concat(), &limits).len, None);
    }
    let limits = Limits { tensors: 2, ..Limits::default() };
    let keys = ["0", "1", "2"].map(|key| ("FloatStorage", key, &[7][..], &[1][..]));
    assert_eq!(Pickle::parse(&tensors_pickle(&keys), &limits).len, None);
}

proptest! {
    #[test]
    fn changed_pickles_never_panic(changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        let size = &[3, 4][..];
        let tensors = ["0", "1", "2"].map(|key| ("FloatStorage", key, size, &[4, 1][..]));
        let mut bytes = tensors_pickle(&tensors);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let found = parse(&bytes);
        prop_assert!(found.len.is_none_or(|len| len <= bytes.len()));
    }
}
