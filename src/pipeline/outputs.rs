//! Where a run writes: names of archives, outputs that would destroy their own source, and what runs that were killed
//! have left there.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::manifest::MANIFEST_NAME;
use super::paths::OutputDir;
use super::tree::SourceTree;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::remove_stale_partials;

/// What an archive's name adds to the original's.
pub const ARCHIVE_SUFFIX: &str = ".alcm";

/// The path of each file's archive below the output: its own with `.alcm`, or, where the tree has a directory
/// of that name, with the first free of `.1.alcm`, `.2.alcm`, and so on.
pub(crate) fn archive_names(tree: &SourceTree) -> Result<Vec<String>> {
    let dirs: HashSet<&str> = tree.dirs.iter().map(|dir| dir.path.as_str()).collect();
    if dirs.contains(MANIFEST_NAME) {
        let message = format!("a directory named {MANIFEST_NAME} would stand where the manifest goes");
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    let mut taken: HashSet<String> = HashSet::new();
    let mut names = Vec::new();
    for file in &tree.files {
        let plain = std::iter::once(format!("{}{ARCHIVE_SUFFIX}", file.path));
        let numbered = (1_u64..).map(|number| format!("{}.{number}{ARCHIVE_SUFFIX}", file.path));
        let free = |name: &String| !dirs.contains(name.as_str()) && !taken.contains(name);
        let name = plain.chain(numbered).find(free).unwrap_or_default();
        taken.insert(name.clone());
        names.push(name);
    }
    Ok(names)
}

/// `path` with all links resolved, also where its last components do not exist yet.
pub(crate) fn resolve(path: &Path) -> Option<PathBuf> {
    let mut missing = Vec::new();
    let mut existing = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    loop {
        if let Ok(resolved) = fs::canonicalize(existing) {
            return Some(missing.iter().rev().fold(resolved, |path, name| path.join(name)));
        }
        missing.push(existing.file_name()?);
        existing = match existing.parent()? {
            parent if parent.as_os_str().is_empty() => Path::new("."),
            parent => parent,
        };
    }
}

/// Refuses an output in, or equal to, one of the sources.
pub(crate) fn refuse_overlap(paths: &[PathBuf], output: &Path) -> Result<()> {
    let resolved = resolve(output);
    for path in paths {
        if let (Some(output), Ok(source)) = (&resolved, fs::canonicalize(path))
            && output.starts_with(&source)
        {
            let message = format!("output lies within the source {}; name one outside of it", path.display());
            return Err(Error::new(ErrorKind::InvalidConfig, message).in_file(output));
        }
    }
    Ok(())
}

/// Refuses what [`refuse_overlap`] does of the output directory and of each directory of archives in it.
pub(crate) fn refuse_tree_overlap(paths: &[PathBuf], tree: &SourceTree, output: &Path) -> Result<()> {
    refuse_overlap(paths, output)?;
    let roots = tree.dirs.iter().filter(|dir| !dir.path.contains('/'));
    roots.into_iter().try_for_each(|root| refuse_overlap(paths, &output.join(&root.path)))
}

/// Refuses to restore the archive `source` over itself.
pub(crate) fn refuse_same_file(source: &Path, output: &Path) -> Result<()> {
    match fs::canonicalize(source) {
        Ok(source) if resolve(output).as_ref() == Some(&source) => {
            let message = "output is the archive itself; name another";
            Err(Error::new(ErrorKind::InvalidConfig, message).in_file(output))
        }
        _ => Ok(()),
    }
}

/// Removes what runs that were killed have left unfinished in the directories of `out` that hold `names`, as far as
/// this run may. What live processes write stays.
pub(crate) fn remove_leftovers<'n>(out: &OutputDir, names: impl Iterator<Item = &'n str>) {
    let dirs: HashSet<&str> = names.map(|name| name.rsplit_once('/').map_or("", |(dir, _)| dir)).collect();
    for dir in dirs.into_iter().chain([""]) {
        if let Some(dir) = out.existing_dir(dir) {
            // They are in nobody's way, so a folder that cannot be cleaned is no failure.
            let _ = remove_stale_partials(&dir);
        }
    }
}

/// As [`remove_leftovers`], of the folder that the single file `output` goes to.
pub(crate) fn remove_leftovers_beside(output: &Path) {
    if let Some(folder) = output.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let _ = remove_stale_partials(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::tree::{SourceDir, SourceFile};

    fn tree(files: &[&str], dirs: &[&str]) -> SourceTree {
        let file = |path: &&str| SourceFile {
            path: (*path).to_owned(),
            source: PathBuf::new(),
            size: 0,
            mode: 0,
            mtime: (0, 0),
        };
        let dir = |path: &&str| SourceDir { path: (*path).to_owned(), mode: 0, mtime: (0, 0) };
        SourceTree {
            files: files.iter().map(file).collect(),
            dirs: dirs.iter().map(dir).collect(),
            ..SourceTree::default()
        }
    }

    #[test]
    fn names_of_archives_meet_neither_directories_nor_each_other() {
        let names = archive_names(&tree(&["a", "a.1", "b"], &["a.alcm"])).unwrap();
        assert_eq!(names, ["a.1.alcm", "a.1.1.alcm", "b.alcm"]);
        assert!(archive_names(&tree(&[], &[MANIFEST_NAME])).is_err());
    }

    #[test]
    fn output_within_a_source_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let sources = [dir.path().join("a")];
        fs::create_dir(&sources[0]).unwrap();
        for inside in ["a", "a/b", "a/b/c", "b/../a/x"] {
            fs::create_dir_all(dir.path().join("b")).unwrap();
            assert!(refuse_overlap(&sources, &dir.path().join(inside)).is_err(), "{inside}");
        }
        let walked = SourceTree::walk(&sources).unwrap();
        for outside in ["ab", "b/c", "."] {
            refuse_overlap(&sources, &dir.path().join(outside)).unwrap();
            // In the source's own parent its archives would go into the source.
            let refused = refuse_tree_overlap(&sources, &walked, &dir.path().join(outside)).is_err();
            assert_eq!(refused, outside == ".", "{outside}");
        }
    }
}
