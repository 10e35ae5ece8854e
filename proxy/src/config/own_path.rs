//! Paths that the operator names: absolute, and never below `/etc/pve`.
//!
//! In: the text of a key. Out: a path, or the rule that it breaks. Always: what stands in the path and what its links
//! lead to count alike. Never: opens what is named.
//!
//! The cluster's file system hangs when the cluster has no quorum, and its files are the cluster's own.

use pulse_config::Section;
use std::fs;
use std::path::{Component, Path, PathBuf};

const CLUSTER_FILES: &str = "/etc/pve";

/// Reads a path; an empty one is as if it were not there.
pub(super) fn read(keys: &mut Section<'_, '_>, key: &str) -> Option<PathBuf> {
    let path = keys.value(key, |text| match PathBuf::from(text) {
        path if text.is_empty() => Ok(path),
        path if path.is_absolute() => check(&path).map(|()| path),
        // Not repeated: what stands here by mistake may be the secret itself.
        _ => Err("must be an absolute path (beginning with /)".to_owned()),
    });
    path.filter(|path| !path.as_os_str().is_empty())
}

/// Refuses what lies below `/etc/pve`.
///
/// # Errors
/// The rule, and what to do.
pub(super) fn check(path: &Path) -> Result<(), String> {
    if !leads_to_cluster_files(path) {
        return Ok(());
    }
    Err(format!(
        "lies below {CLUSTER_FILES}, and this program never opens anything there: it would hang with the cluster's file \
         system; name a path elsewhere, of a copy if need be"
    ))
}

fn leads_to_cluster_files(path: &Path) -> bool {
    let Ok(path) = std::path::absolute(path) else { return false };
    let mut plain = PathBuf::new();
    let mut links = 0;
    let mut rest: Vec<PathBuf> = path.components().rev().map(|part| part.as_os_str().into()).collect();
    while let Some(part) = rest.pop() {
        match part.components().next() {
            Some(Component::ParentDir) => _ = plain.pop(),
            Some(Component::CurDir) | None => {}
            Some(_) => plain.push(part),
        }
        // Before a link in there would be read.
        if plain.starts_with(CLUSTER_FILES) {
            return true;
        }
        if let Ok(target) = fs::read_link(&plain) {
            links += 1;
            // The kernel gives up there too (path_resolution(7)), so nothing would be opened.
            if links > 40 {
                return false;
            }
            plain.pop();
            rest.extend(target.components().rev().map(|part| PathBuf::from(part.as_os_str())));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_lies_in_the_clusters_files_is_refused_however_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (direct, above) = (folder.path().join("direct"), folder.path().join("above"));
        symlink("/etc/pve/nodes.yaml", &direct).unwrap();
        symlink("/etc", &above).unwrap();
        let relative = folder.path().join("relative");
        symlink("above/pve", &relative).unwrap();
        for path in [
            "/etc/pve".into(),
            "/etc/pve/nodes.yaml".into(),
            "/etc//./pve/x/../nodes.yaml".into(),
            "/var/../etc/pve/nodes.yaml".into(),
            direct,
            above.join("pve/nodes.yaml"),
            relative.join("nodes.yaml"),
        ] {
            assert!(check(&path).unwrap_err().contains("never opens"), "{}", path.display());
        }
        let round = folder.path().join("round");
        symlink("round", &round).unwrap();
        for path in ["/etc/pve2".into(), "/etc/pve.yaml".into(), "/".into(), folder.path().join("x"), round] {
            assert_eq!(check(&path), Ok(()), "{}", path.display());
        }
    }
}
