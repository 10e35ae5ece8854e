//! How many files, and so how many connections, the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for the database, certificates, the admin socket and what is yet to be written down: an overloaded port must
/// not lock the owner out.
const RESERVED: u64 = 256;

/// What the process may have open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileLimit {
    /// Files in all.
    pub files: u64,
    /// Connections, and so watch streams: the rest after what the program itself needs.
    pub connections: u64,
}

/// Raises the soft limit to the hard one, and says what it allows. A limit that cannot be raised stays as it is.
pub fn raise() -> FileLimit {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    FileLimit { files, connections: files.saturating_sub(RESERVED).max(files / 2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let limit = raise();
        assert_eq!(limit.files, hard);
        assert!(limit.connections < limit.files);
    }
}
