//! What outputs leave beside them, and who may read them.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;

use common::{alcm, make_tree, partials, snapshot};
use tempfile::tempdir;

#[test]
fn leftovers_of_dead_runs_are_removed_and_never_archived() {
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    let leave = |at: &str| fs::write(dir.path().join(at).join(".alcm-a1b2c3.alcm-partial"), b"half").unwrap();
    leave("model/deep");
    let found = alcm(dir.path(), "compress model -o out --json").assert().code(0).get_output().stdout.clone();
    let found: serde_json::Value = serde_json::from_slice(&found).unwrap();
    assert_eq!((&found["files"], &found["unfinished_files"]), (&8.into(), &1.into()));
    assert!(!snapshot(&dir.path().join("out")).keys().any(|name| name.contains("a1b2c3")));
    assert_eq!(partials(dir.path()).len(), 1, "a source is only read");

    alcm(dir.path(), "decompress out -o back -q").assert().code(0);
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join(".alcm-a1b2c3.alcm-partial"), b"half").unwrap();
    std::os::unix::fs::symlink(&elsewhere, dir.path().join("back/model/linked")).unwrap();
    ["back/model/deep", "back/model/deep/er", "back", "out", "."].into_iter().for_each(leave);
    let live = dir.path().join("back/model/.alcm-z9y8x7.alcm-partial");
    let live_file = fs::File::create(&live).unwrap();
    live_file.lock().unwrap();
    alcm(dir.path(), "decompress out -o back -q --force").assert().code(0);
    assert_eq!(partials(&dir.path().join("back")), [".alcm-z9y8x7.alcm-partial"], "of a live run");
    alcm(dir.path(), "compress model -o out -q --resume").assert().code(0);
    alcm(dir.path(), "decompress out/model/config.json.alcm -o config.json -q").assert().code(0);
    assert!(partials(&dir.path().join("out")).is_empty());
    let left = fs::read_dir(dir.path()).unwrap().flatten();
    assert!(!left.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with("partial")));
    assert_eq!(partials(&elsewhere).len(), 1, "nothing is removed through a link");
}

#[test]
fn nothing_is_more_readable_than_its_source() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempdir().unwrap();
    make_tree(dir.path());
    let set = |name: &str, mode| {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    set("model/config.json", 0o600);
    set("model/b.safetensors", 0o640);
    alcm(dir.path(), "compress model -o out -q").assert().code(0);
    assert_eq!(mode("out/model/config.json.alcm"), 0o600);
    assert_eq!(mode("out/model/b.safetensors.alcm") & 0o007, 0);
    alcm(dir.path(), "compress model/b.safetensors -o b.alcm -q").assert().code(0);
    set("b.alcm", 0o600);
    alcm(dir.path(), "decompress b.alcm -o b -q").assert().code(0);
    alcm(dir.path(), "extract b.alcm --tensor own -o own -q").assert().code(0);
    assert_eq!((mode("b"), mode("own")), (0o600, 0o600));
    alcm(dir.path(), "decompress out -o back -q").assert().code(0);
    assert_eq!((mode("back/model/config.json"), mode("back/model/b.safetensors")), (0o600, 0o640));
    set("model/b.safetensors", 0o444);
    alcm(dir.path(), "compress model/b.safetensors -o c.alcm -q --verify").assert().code(0);
    alcm(dir.path(), "decompress c.alcm -o c -q").assert().code(0);
    assert_eq!((mode("c.alcm"), mode("c")), (0o444, 0o444));
}
