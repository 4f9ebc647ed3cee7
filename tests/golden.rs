//! Golden files: decoding is pinned for good, encoding until a noted change. See tests/golden/README.md.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use alcm::Dtype;
use alcm::container::{Archive, FLAG_REFERENCES, no_other_files};
use alcm::kernels::Isa;
use alcm::pipeline::tensor::{Tensor, TensorGoal, TensorMode, compress_tensor};
use alcm::stage::{BlockDecoder, Coding, Quantizer};
use common::alcm;
use common::delta::{DELTA_DTYPES, DeltaBlocks, delta_archive, delta_blocks};
use common::fixtures::{fixtures, isas, read_as_stream, read_at_random};
use common::golden::{
    LEVELS, OutputSums, golden_archives, golden_dir, layered_archive, layered_checkpoint, listed_sums,
    real_tree, reject_files, sha256, tree_sums,
};
use tempfile::tempdir;

/// The files of the golden folder `name`.
fn files(name: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(golden_dir().join(name)).unwrap().map(|entry| entry.unwrap().path());
    let name_of = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries.map(|path| (name_of(&path), fs::read(&path).unwrap())).collect()
}

#[test]
fn golden_archives_decode_to_the_fixtures() {
    let files = files("ok");
    let expected: BTreeMap<_, _> =
        golden_archives().into_iter().map(|(name, _, original)| (name, original)).collect();
    assert!(files.keys().eq(expected.keys()), "a golden file is missing or left over");
    for (name, archive) in files {
        for isa in isas() {
            let mut decoder = BlockDecoder::new(isa);
            assert!(
                read_at_random(&archive, &mut decoder, 0xaa).unwrap() == expected[&name],
                "{name} {isa:?}"
            );
            assert!(
                read_as_stream(&archive, &mut decoder, 0xaa).unwrap() == expected[&name],
                "{name} {isa:?}"
            );
        }
    }
}

#[test]
fn fixtures_encode_to_the_golden_archives() {
    let files = files("ok");
    let mut codings = BTreeSet::new();
    for fixture in fixtures() {
        for isa in isas() {
            let (coding, payload) = fixture.encode(isa);
            codings.insert(coding);
            assert!(
                fixture.pack(isa).archive == files[&format!("{}.alcm", fixture.name)],
                "{} {isa:?}: {} of {} bytes; if the encoder was changed on purpose, see tests/golden/README.md",
                fixture.name,
                coding.name(),
                payload.len()
            );
        }
    }
    // Blocks that need others have an archive, but no fixture.
    codings.extend([Coding::Reference, Coding::Delta]);
    for isa in isas() {
        for dtype in DELTA_DTYPES {
            let archive = delta_archive(FLAG_REFERENCES, &delta_blocks(dtype, isa)).archive;
            let name = format!("delta-{}.alcm", dtype.name().to_lowercase());
            assert!(archive == files[&name], "{name} {isa:?}");
        }
    }
    // So has what refines a layer: the layered archive.
    codings.insert(Coding::Refined);
    assert!(codings.into_iter().eq(Coding::all()), "a coding has no fixture");
}

/// The golden archive of layers.
const LAYERED: &str = "three-layers.alcm";

#[test]
fn the_golden_layers_decode_and_are_what_is_written() {
    let files = files("layers");
    assert!(files.keys().eq([LAYERED]));
    let dir = tempdir().unwrap();
    for isa in isas() {
        assert!(layered_archive(dir.path(), &format!("--isa {}", isa.name())) == files[LAYERED], "{isa:?}");
        let mut decoder = BlockDecoder::new(isa);
        let archive = Archive::open(&files[LAYERED], &alcm::Limits::default()).unwrap();
        assert_eq!(archive.n_layers(), 3);
        for number in 1..=3 {
            let layer = archive.layer(number).unwrap();
            let end = usize::try_from(layer.archive_bytes()).unwrap();
            let restored = read_at_random(&files[LAYERED][..end], &mut decoder, 0xaa).unwrap();
            assert_eq!(restored == layered_checkpoint(), number == 3);
        }
    }
}

#[test]
fn broken_archives_are_refused_as_their_names_say() {
    let files = files("reject");
    assert!(
        files.keys().cloned().collect::<BTreeSet<_>>()
            == reject_files().into_iter().map(|file| file.0).collect()
    );
    let dir = tempdir().unwrap();
    for (name, archive) in files {
        let (kind, _) = name.split_once('.').unwrap();
        for isa in isas() {
            let mut decoder = BlockDecoder::new(isa);
            let error = read_at_random(&archive, &mut decoder, 0xaa).unwrap_err();
            assert_eq!(error.kind().as_str(), kind, "{name}: {error}");
            read_as_stream(&archive, &mut decoder, 0xaa).unwrap_err();
        }
        fs::write(dir.path().join("x.alcm"), &archive).unwrap();
        for args in ["verify x.alcm", "decompress x.alcm -o back", "inspect x.alcm --json"] {
            // Inspection looks into no block.
            let code = alcm(dir.path(), args).output().unwrap().status.code();
            assert!(code == Some(1) || args.starts_with("inspect") && code == Some(0), "{name}: {args}");
        }
        assert!(!dir.path().join("back").exists(), "{name}");
    }
}

#[test]
fn sums_are_those_of_the_list() {
    let listed = listed_sums();
    let golden = listed.keys().filter(|path| !path.starts_with("output/"));
    assert!(golden.cloned().eq(golden_sums().into_keys()));
    for (path, sum) in golden_sums() {
        assert_eq!(listed.get(&path), Some(&sum), "{path}");
    }
}

fn golden_sums() -> OutputSums {
    let mut sums = OutputSums::new();
    for folder in ["ok", "reject", "layers"] {
        sums.extend(files(folder).iter().map(|(name, bytes)| (format!("{folder}/{name}"), sha256(bytes))));
    }
    sums
}

/// Seeds of the fuzz targets whose inputs are no archives: each begins as the target's own comment says.
fn fuzz_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    // Small ones: a fuzzer is at its best with them.
    for fixture in fixtures().into_iter().filter(|fixture| fixture.bytes.len() <= 6300) {
        let (coding, payload) = fixture.encode(Isa::Scalar);
        let n_units = fixture.bytes.len() / fixture.dtype.unit_bytes();
        let ids = [fixture.dtype.wire_id(), coding.wire_id()];
        let units = &u32::try_from(n_units).unwrap().to_le_bytes();
        let payload_len = u16::try_from(payload.len()).unwrap().to_le_bytes();
        let name = fixture.name;
        seeds.push(("block_payload", name.clone(), [&ids, &units[..3], &payload].concat()));
        if name.starts_with("dtype") || coding == Coding::Adaptive {
            let block = [&ids, &units[..2], &payload_len, &payload].concat();
            if payload.len() <= 1500 {
                seeds.push(("hostile_archive", name.clone(), block.repeat(2)));
            }
            let elements = &fixture.bytes[..fixture.bytes.len().min(800)];
            let level = if coding == Coding::Adaptive { 129 } else { 1 };
            seeds.push(("roundtrip", name, [&[ids[0], level, 7, 0, 3], elements].concat()));
        } else if coding == Coding::Sparse {
            let section_len = u32::from_le_bytes(*payload[4..].first_chunk().unwrap()) as usize;
            let section = &payload[12..12 + section_len];
            seeds.push(("rans8_section", name.clone(), [&units[..2], section].concat()));
            seeds.push(("rans12_section", name, [&[64, 0], &payload[..64]].concat()));
        }
    }
    let layered = layered_archive(tempdir().unwrap().path(), "");
    let archive = Archive::open(&layered, &alcm::Limits::default()).unwrap();
    let mut decoder = BlockDecoder::new(Isa::Scalar);
    for entry in archive.blocks().filter(|entry| entry.coding == Coding::Refined && entry.payload_bytes > 0) {
        let (before, payload) = (archive.before().unwrap(), archive.record_of(&entry).unwrap().payload);
        let mut block = vec![0; entry.decoded_bytes as usize];
        let coarser = before.block(entry.block_idx).unwrap();
        before.decode_entry(&coarser, &mut decoder, &no_other_files, &mut block).unwrap();
        // The target takes at most 256 units of 4 bytes.
        block.truncate(1024);
        seeds.push(("refined_payload", entry.block_idx.to_string(), [&[255], &block[..], payload].concat()));
    }
    for (dtype, choice) in DELTA_DTYPES.into_iter().zip(0..) {
        let DeltaBlocks { base, near, payload, .. } = delta_blocks(dtype, Isa::Scalar);
        let base = [&u16::try_from(base.len()).unwrap().to_le_bytes(), &base[..]].concat();
        let name = dtype.name().to_lowercase();
        seeds.push(("delta_payload", name.clone(), [&[choice], &base[..], &payload].concat()));
        seeds.push(("delta_payload", format!("{name}-block"), [&[choice | 0x80], &base[..], &near].concat()));
    }
    let shape = [25, 8];
    let singles = fixtures().into_iter().find(|fixture| fixture.name == "dtype-f32").unwrap();
    let bytes = &singles.bytes[..800];
    let goal = TensorGoal::RelL2(0.01);
    for (name, mode) in [("exact", TensorMode::Exact), ("lossy", TensorMode::Lossy(goal, Quantizer::Uniform))]
    {
        let tensor = Tensor { dtype: Dtype::F32, shape: &shape, bytes };
        let frame = compress_tensor(Isa::Scalar, tensor, mode).unwrap().frame;
        // Dtype and goal of the target's other half, then what is between magic and CRC.
        let middle = &frame[4..frame.len() - 8];
        seeds.push(("tensor_frame", name.into(), [&[1, 0x43], middle].concat()));
    }
    let json = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]},\
                \"b\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[8,10]},\
                \"__metadata__\":{\"format\":\"pt\"}}";
    let header = [&(json.len() as u64).to_le_bytes(), json.as_bytes(), &[0; 10]].concat();
    seeds.push(("safetensors_header", "three".into(), header));
    let digest = "00".repeat(32);
    let entries = format!(
        "{{\"tool\":\"alcm\",\"files\":[{{\"path\":\"r/a\",\"size\":3,\"mode\":420,\"mtime\":[1,2],\
         \"blake3\":\"{digest}\",\"archive\":\"r/a.alcm\",\"archive_size\":99}},{{\"path\":\"r/b\",\"size\":3,\
         \"mode\":420,\"mtime\":[1,2],\"blake3\":\"{digest}\",\"sha256\":\"{digest}\",\"archive\":\"r/a.alcm\",\
         \"archive_size\":99,\"same_as\":\"r/a\"}}],\"dirs\":[{{\"path\":\"r\",\"mode\":493,\"mtime\":[-1,0]}}],\
         \"links\":[{{\"path\":\"r/l\",\"target\":\"a\"}}],\"failed\":[{{\"path\":\"x\",\"kind\":\"io\",\
         \"message\":\"m\"}}]}}"
    );
    seeds.push(("manifest", "entries".into(), entries.into_bytes()));
    seeds
}

/// Writes the fuzz seeds anew beside what fuzzing has found: `cargo test --test golden -- --ignored make_fuzz_seeds`.
#[test]
#[ignore = "writes into fuzz/corpus"]
fn make_fuzz_seeds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, name, bytes) in fuzz_seeds() {
        fs::create_dir_all(corpus.join(target)).unwrap();
        fs::write(corpus.join(target).join(format!("seed-{name}")), bytes).unwrap();
    }
}

/// Writes the golden files anew: `cargo test --test golden -- --ignored make_golden`.
#[test]
#[ignore = "writes into tests/golden"]
fn make_golden() {
    let dir = golden_dir();
    let ok = golden_archives().into_iter().map(|(name, archive, _)| (name, archive)).collect();
    for (folder, files) in [("ok", ok), ("reject", reject_files())] {
        // Left over from names that are no more.
        let _ = fs::remove_dir_all(dir.join(folder));
        fs::create_dir_all(dir.join(folder)).unwrap();
        for (name, bytes) in files {
            fs::write(dir.join(folder).join(name), bytes).unwrap();
        }
    }
    fs::create_dir_all(dir.join("layers")).unwrap();
    fs::write(dir.join("layers").join(LAYERED), layered_archive(tempdir().unwrap().path(), "")).unwrap();
    let mut sums = golden_sums();
    for (_, level) in LEVELS {
        let out = tempdir().unwrap();
        let args = format!("compress {} -o out --level {level} -q", real_tree().display());
        alcm(out.path(), &args).assert().code(0);
        let found = common::snapshot(&out.path().join("out")).into_iter();
        let archives = found.filter(|(name, _)| name.ends_with(".alcm")).map(|(name, entry)| (name, entry.4));
        sums.extend(tree_sums(level, &archives.collect()));
    }
    let text: String = sums.iter().map(|(path, sum)| format!("{sum}  {path}\n")).collect();
    fs::write(dir.join("SHA256SUMS"), text).unwrap();
}
