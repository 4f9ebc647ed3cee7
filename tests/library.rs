//! The library's way to one tensor: references followed, damage and wrong buffers refused.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;

use alcm::ErrorKind;
use alcm::pipeline::archive_file::ArchiveFile;
use alcm::pipeline::compress::compress_tree;
use alcm::pipeline::context::Context;
use alcm::pipeline::settings::CompressOptions;
use common::{make_tree, weights};
use tempfile::tempdir;

#[test]
fn every_tensor_is_read_also_through_references() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    let out = dir.path().join("out");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let ctx = Context::new(&pool);
    let report = compress_tree(&ctx, &[dir.path().join("model")], &out, &CompressOptions::default()).unwrap();
    assert!(report.failures.is_empty() && report.reference_bytes > 0);

    let archive = ArchiveFile::open(&ctx, &out.join("model/b.safetensors.alcm")).unwrap();
    let names: Vec<&str> = archive.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["big", "tied", "own"]);
    for (name, expected) in
        [("big", weights(3, 1_500_001)), ("tied", weights(1, 60_000)), ("own", weights(2, 50_000))]
    {
        let tensor = archive.tensor(name).unwrap();
        let mut elements = vec![0xaa; expected.len()];
        archive.read_tensor(&ctx, tensor, &mut elements).unwrap();
        assert!(elements == expected, "{name}");
        let error = archive.read_tensor(&ctx, tensor, &mut elements[1..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.location().tensor.as_deref(), Some(name));
    }
    assert!(archive.tensor("absent").is_none());
    let plain = ArchiveFile::open(&ctx, &out.join("model/config.json.alcm")).unwrap();
    assert!(plain.tensors().is_empty());
}

#[test]
fn damage_within_the_tensor_is_an_error_that_names_it() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    let out = dir.path().join("out");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let ctx = Context::new(&pool);
    compress_tree(&ctx, &[dir.path().join("model")], &out, &CompressOptions::default()).unwrap();
    let path = out.join("model/b.safetensors.alcm");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let archive = ArchiveFile::open(&ctx, &path).unwrap();
    let tensor = archive.tensor("big").unwrap();
    let mut elements = vec![0; usize::try_from(tensor.byte_len()).unwrap()];
    let error = archive.read_tensor(&ctx, tensor, &mut elements).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    assert_eq!(error.location().tensor.as_deref(), Some("big"));
    assert_eq!(error.location().file.as_deref(), Some(path.as_path()));
    assert!(error.location().block_idx.is_some());
}
