//! Relative paths as manifests hold them, and the only way in which the pipeline creates things below an
//! output directory: component by component, never through a symbolic link.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// Longest relative path, in bytes: Linux's `PATH_MAX` less its NUL.
const MAX_PATH_BYTES: usize = 4095;
/// Most components of a path: bounds the work of checking each ancestor of each path of a hostile manifest.
const MAX_COMPONENTS: usize = 128;

/// Says why `name` cannot be one component of a path in a manifest, if so.
fn name_fault(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("an empty component"),
        "." | ".." => Some("a `.` or `..` component"),
        _ if name.chars().any(char::is_control) => Some("a control character"),
        // A path separator on other systems, where the tree may be restored.
        _ if name.contains('\\') => Some("a backslash"),
        _ => None,
    }
}

/// Checks that `path` is relative, `/`-separated, in normal form, and free of control characters and
/// backslashes.
///
/// # Errors
/// `kind`, saying what is wrong with the path.
pub fn check_relative(path: &str, kind: ErrorKind) -> Result<()> {
    let fault = if path.len() > MAX_PATH_BYTES {
        Some("more than 4095 bytes")
    } else if path.split('/').count() > MAX_COMPONENTS {
        Some("more than 128 components")
    } else if path.starts_with('/') {
        Some("a leading `/`")
    } else {
        path.split('/').find_map(name_fault)
    };
    let Some(fault) = fault else { return Ok(()) };
    // Only who has made the path can rename it.
    let remedy = if kind == ErrorKind::InvalidInput { "; rename it to keep it" } else { "" };
    Err(Error::new(kind, format!("path \"{}\" has {fault}{remedy}", path.escape_debug())))
}

/// Checks that a symbolic link at `link`, a checked relative path whose first component is the tree's root,
/// stays inside that root: its target is relative, climbs by `..` only at its start, and not above the root.
///
/// With `..` only in front, where the link's own parents are real directories, no other link can change what
/// the target climbs to.
///
/// # Errors
/// `kind`, saying what is wrong with the target.
pub fn check_link_target(link: &str, target: &str, kind: ErrorKind) -> Result<()> {
    let refuse = |fault: &str| {
        let rule = if kind == ErrorKind::InvalidInput {
            "; only links that stay inside the tree are kept"
        } else {
            "; refused, since it would lead out of the tree"
        };
        Err(Error::new(kind, format!("symbolic link to \"{}\" {fault}{rule}", target.escape_debug())))
    };
    if target.is_empty()
        || target.len() > MAX_PATH_BYTES
        || target.chars().any(|c| c.is_control() || c == '\\')
    {
        return refuse("has an empty, overlong or unprintable target");
    }
    if target.starts_with('/') {
        return refuse("is absolute");
    }
    let mut climbed = 0_usize;
    let mut descending = false;
    for component in target.split('/') {
        match component {
            ".." if descending => return refuse("has `..` after a name"),
            ".." => climbed += 1,
            "" | "." => {}
            _ => descending = true,
        }
    }
    // A link directly in the root has one `/`, and may not climb at all.
    let depth_below_root = link.matches('/').count();
    match climbed.checked_add(1) {
        Some(needed) if needed <= depth_below_root => Ok(()),
        _ => refuse("leaves the tree"),
    }
}

/// An output directory, below which paths are created component by component.
#[derive(Debug, Clone)]
pub struct OutputDir {
    root: PathBuf,
}

impl OutputDir {
    /// Creates `root`, which may itself be reached through links, as the user named it, if it is absent.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it cannot be created or is not a directory.
    pub fn create(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).map_err(|e| Error::io("cannot create directory", e).in_file(root))?;
        Ok(Self { root: root.to_owned() })
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Creates the directory `relative` and its parents, refusing to go through anything that is not a real
    /// directory, and gives its path.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the system refuses; [`ErrorKind::InvalidInput`] for a bad path or where a link
    /// or file is in the way.
    pub fn create_dir(&self, relative: &str) -> Result<PathBuf> {
        check_relative(relative, ErrorKind::InvalidInput)?;
        let mut path = self.root.clone();
        for name in relative.split('/') {
            path.push(name);
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => require_real_dir(&path)?,
                Err(e) => return Err(Error::io("cannot create directory", e).in_file(path)),
            }
        }
        Ok(path)
    }

    /// The path of the directory `relative` if it is there and no link leads to it; of the root for an empty path.
    #[must_use]
    pub fn existing_dir(&self, relative: &str) -> Option<PathBuf> {
        let mut path = self.root.clone();
        for name in relative.split('/').filter(|name| !name.is_empty()) {
            check_relative(name, ErrorKind::InvalidInput).ok()?;
            path.push(name);
            require_real_dir(&path).ok()?;
        }
        Some(path)
    }

    /// The path of the file `relative`, whose parents are created; what stands there already is looked at, not
    /// touched.
    ///
    /// # Errors
    /// As [`Self::create_dir`]; also [`ErrorKind::InvalidInput`] where a link or directory stands there, or,
    /// unless `replace`, a file.
    pub fn place_file(&self, relative: &str, replace: bool) -> Result<PathBuf> {
        let path = self.place(relative)?;
        check_free(&path, replace)?;
        Ok(path)
    }

    /// The path of `relative`, whose parents are created, whatever stands there already.
    ///
    /// # Errors
    /// As [`Self::create_dir`].
    pub fn place(&self, relative: &str) -> Result<PathBuf> {
        check_relative(relative, ErrorKind::InvalidInput)?;
        Ok(match relative.rsplit_once('/') {
            Some((parent, name)) => self.create_dir(parent)?.join(name),
            None => self.root.join(relative),
        })
    }
}

/// Refuses anything but a directory that is not a link.
fn require_real_dir(path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path).map_err(|e| Error::io("cannot look at", e).in_file(path))?;
    if metadata.is_dir() {
        return Ok(());
    }
    let what = if metadata.is_symlink() { "a symbolic link" } else { "not a directory" };
    Err(Error::new(ErrorKind::InvalidInput, format!("{what} is in the way of an output directory"))
        .in_file(path))
}

/// Refuses an output path at which a link or directory stands, or, unless `replace`, a file.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] as said; [`ErrorKind::Io`] where the system refuses to look.
pub fn check_free(path: &Path, replace: bool) -> Result<()> {
    let fault = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("cannot look at", e).in_file(path)),
        Ok(metadata) if metadata.is_symlink() => "output is a symbolic link; refusing to write through it",
        Ok(metadata) if metadata.is_dir() => "output is a directory",
        Ok(_) if replace => return Ok(()),
        Ok(_) => "output exists; pass --force to replace it",
    };
    Err(Error::new(ErrorKind::InvalidInput, fault).in_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_paths_are_refused() {
        for path in
            ["", "/etc", "a/../b", "..", "a//b", "a/", "./a", "a\nb", "a\0", "a\\b", "a\u{7f}", "a/\u{85}"]
        {
            let error = check_relative(path, ErrorKind::Corrupt).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{path:?}");
            assert!(!error.to_string().contains(['\n', '\0']), "{error}");
            assert!(!error.to_string().contains("rename"), "whoever restores cannot: {error}");
        }
        assert!(check_relative(&"a".repeat(5000), ErrorKind::Corrupt).is_err());
        assert!(check_relative(&format!("{}a", "a/".repeat(128)), ErrorKind::Corrupt).is_err());
        for path in ["a", "a/b.c", "naïve/名前", "..a", "a..", "...", " "] {
            check_relative(path, ErrorKind::Corrupt).unwrap();
        }
    }

    #[test]
    fn links_must_stay_inside() {
        let check = |link, target| check_link_target(link, target, ErrorKind::InvalidInput);
        for (link, target) in [
            ("r/a", "b"),
            ("r/a", "b/c"),
            ("r/d/a", "../b"),
            ("r/d/e/a", "../../b"),
            ("r/a", "./b"),
            ("r/d/a", ".."),
        ] {
            check(link, target).unwrap();
        }
        for (link, target) in [
            ("r/a", "/etc/passwd"),
            ("r/a", ".."),
            ("r/a", "../r/b"),
            ("r/d/a", "../../b"),
            ("r/d/a", "x/../../.."),
            ("r/d/a", "x/../y"),
            ("a", "b"),
            ("r/a", ""),
            ("r/a", "x\ny"),
        ] {
            assert!(check(link, target).is_err(), "{link} -> {target}");
        }
    }

    #[test]
    fn output_never_goes_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let out = OutputDir::create(&dir.path().join("out")).unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(elsewhere.path(), out.root().join("planted")).unwrap();
            assert_eq!(out.place_file("planted/f", true).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(out.place_file("planted", true).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        let path = out.place_file("a/b/c", false).unwrap();
        fs::write(&path, b"x").unwrap();
        assert!(out.place_file("a/b/c", false).is_err());
        assert_eq!(out.place_file("a/b/c", true).unwrap(), path);
        assert!(out.place_file("a/b", true).is_err(), "a directory is not replaced");
        assert_eq!(out.existing_dir("a/b"), Some(out.root().join("a/b")));
        assert_eq!(out.existing_dir(""), Some(out.root().to_owned()));
        for none in ["planted", "planted/x", "a/b/c", "a/no", "..", "a/../.."] {
            assert_eq!(out.existing_dir(none), None, "{none}");
        }
        assert!(out.create_dir("a/b/c").is_err(), "a file is in the way");
    }
}
