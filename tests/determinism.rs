//! Same input and settings, same bytes: whatever the thread count, the instruction set, the order of paths.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use alcm::Limits;
use alcm::kernels::Isa;
use alcm::pipeline::compress::compress_tree;
use alcm::pipeline::context::Context;
use alcm::pipeline::progress::NoProgress;
use alcm::pipeline::settings::CompressOptions;
use alcm::stage::Level;
use common::alcm;
use common::fixtures::isas;
use common::golden::{LEVELS, OutputSums, real_tree, tree_sums};
use tempfile::tempdir;

/// The archives below `out`, by their paths.
fn archives(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let found = common::snapshot(out).into_iter();
    found.filter(|(name, _)| name.ends_with(".alcm")).map(|(name, entry)| (name, entry.4)).collect()
}

fn compress(
    paths: &[PathBuf],
    out: &Path,
    level: Level,
    isa: Isa,
    n_threads: usize,
) -> BTreeMap<String, Vec<u8>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
    let ctx = Context { pool: &pool, progress: &NoProgress, isa, limits: Limits::default() };
    let mut options = CompressOptions::default();
    options.coding.level = level;
    let report = compress_tree(&ctx, paths, out, &options).unwrap();
    assert!(report.failures.is_empty());
    archives(out)
}

#[test]
fn archives_do_not_depend_on_threads_or_isa_and_are_those_of_the_list() {
    let mut sums = OutputSums::new();
    for (level, name) in LEVELS {
        let dir = tempdir().unwrap();
        let mut first = None;
        for n_threads in [1, 2, 8] {
            for isa in isas() {
                let out = dir.path().join(format!("{n_threads}-{}", isa.name()));
                let archives = compress(&[real_tree()], &out, level, isa, n_threads);
                assert!(archives.len() > 2);
                let first = first.get_or_insert_with(|| archives.clone());
                assert!(*first == archives, "{name}, {n_threads} threads, {}", isa.name());
            }
        }
        sums.extend(tree_sums(name, &first.unwrap()));
    }
    let listed = common::golden::listed_sums();
    for (path, sum) in sums {
        assert_eq!(listed.get(&path), Some(&sum), "{path}: see tests/golden/README.md");
    }
}

#[test]
fn deterministic_runs_write_the_same_archives() {
    let dir = tempdir().unwrap();
    let tree = real_tree();
    for (level, name) in LEVELS {
        let expected = compress(
            std::slice::from_ref(&tree),
            &dir.path().join(format!("library-{name}")),
            level,
            Isa::detect(),
            2,
        );
        let args = format!("compress {} -o {name} --deterministic --level {name} -q", tree.display());
        alcm(dir.path(), &args).assert().code(0);
        assert!(archives(&dir.path().join(name)) == expected, "{name}");
        // The manifest too is the same from run to run.
        let args = format!("compress {} -o {name}-2 --threads 8 --level {name} -q", tree.display());
        alcm(dir.path(), &args).assert().code(0);
        let manifest = |out: &str| fs::read(dir.path().join(out).join("alcm-manifest.json")).unwrap();
        assert!(manifest(name) == manifest(&format!("{name}-2")), "{name}");
    }
}

#[test]
fn order_of_paths_does_not_matter() {
    let dir = tempdir().unwrap();
    common::make_tree(dir.path());
    let mut paths: Vec<_> =
        fs::read_dir(dir.path().join("model")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let forward = compress(&paths, &dir.path().join("forward"), Level::Default, Isa::detect(), 2);
    paths.reverse();
    let backward = compress(&paths, &dir.path().join("backward"), Level::Default, Isa::detect(), 2);
    assert!(forward.len() >= 7 && forward == backward);
}
