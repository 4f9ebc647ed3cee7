//! A compressor of local files opens no connection: no crate that can is in the dependency tree. That its own
//! source names no socket is held by tests/architecture.rs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Crates that open connections or bring a runtime for it; deny.toml bans the same.
const NETWORK_CRATES: &[&str] = &[
    "actix-web",
    "async-std",
    "attohttpc",
    "axum",
    "curl",
    "curl-sys",
    "h2",
    "hickory-resolver",
    "hyper",
    "isahc",
    "mio",
    "minreq",
    "native-tls",
    "openssl",
    "openssl-sys",
    "quinn",
    "reqwest",
    "rustls",
    "smol",
    "socket2",
    "surf",
    "tokio",
    "tonic",
    "trust-dns-resolver",
    "tungstenite",
    "ureq",
    "warp",
];

#[test]
fn no_network_crate_is_locked() {
    let locked = locked_packages();
    assert!(locked.contains("serde_json"), "Cargo.lock was not understood");
    let found: Vec<_> = NETWORK_CRATES.iter().filter(|name| locked.contains(**name)).collect();
    assert!(found.is_empty(), "network crates in Cargo.lock: {found:?}");
}

#[test]
fn the_lock_file_covers_every_direct_dependency() {
    // Without this a dependency that was added, but not locked, would escape the ban.
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let locked = locked_packages();
    let mut in_dependencies = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if let (true, Some((name, value))) = (in_dependencies, line.split_once('=')) {
            let renamed = value.split_once("package = \"").and_then(|(_, rest)| rest.split('"').next());
            let package = renamed.unwrap_or(name.trim());
            assert!(locked.contains(package), "{package} is in Cargo.toml, but not in Cargo.lock");
        }
    }
}

#[test]
fn no_network_crate_is_resolved() {
    // Cargo's own view, where the registry's sources are at hand; the lock file is checked in any case.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--locked", "--edges", "all", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .unwrap();
    if !output.status.success() {
        eprintln!("cargo tree is not available offline: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.lines().any(|line| line.starts_with("alcm ")), "the tree was not understood");
    for line in tree.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        assert!(!NETWORK_CRATES.contains(&name), "network crate in the dependency tree: {line}");
    }
}

#[test]
fn deny_toml_bans_the_same_crates() {
    let deny = fs::read_to_string(root().join("deny.toml")).unwrap();
    for name in NETWORK_CRATES {
        assert!(deny.contains(&format!("\"{name}\"")), "deny.toml does not ban {name}");
    }
}

/// Names of all packages in Cargo.lock.
fn locked_packages() -> BTreeSet<String> {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = \""));
    names.map(|name| name.trim_end_matches('"').to_owned()).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
