//! Any text as a manifest, and as the entries of one whose hash is right: what is accepted can be written again,
//! and no path leaves the tree.
#![no_main]

use std::path::{Component, Path};

use alcm::pipeline::manifest::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Manifest::from_text(text);
    let digest = blake3::hash(text.as_bytes()).to_hex();
    let whole = format!("{{\"alcm_manifest\":1,\"blake3\":\"{digest}\",\"entries\":{text}}}");
    let Ok(manifest) = Manifest::from_text(&whole) else { return };
    let files = manifest.files.iter().flat_map(|file| [&file.path, &file.archive]);
    let dirs = manifest.dirs.iter().map(|dir| &dir.path);
    let links = manifest.links.iter().map(|link| &link.path);
    for path in files.chain(dirs).chain(links) {
        assert!(Path::new(path).components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
        assert!(!path.chars().any(char::is_control), "{path:?}");
    }
    assert_eq!(Manifest::from_text(&manifest.to_text().unwrap()).unwrap(), manifest);
});
