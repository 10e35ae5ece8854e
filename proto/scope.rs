//! [`Scope`]: which nodes a proxy may read.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Which nodes a proxy may read. Written `all` or `instance:{uuid}`, as it is signed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Scope {
    /// Every node that Pulse knows: for a host that reads for others.
    All,
    /// The nodes of one Proxmox instance.
    Instance(Uuid),
}

/// The text is no scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a scope is written all or instance:UUID")]
pub struct ScopeError;

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::All => f.write_str("all"),
            Scope::Instance(id) => write!(f, "instance:{}", id.as_hyphenated()),
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Scope, ScopeError> {
        if text == "all" {
            return Ok(Scope::All);
        }
        let id = text.strip_prefix("instance:").and_then(|id| Uuid::try_parse(id).ok()).ok_or(ScopeError)?;
        let scope = Scope::Instance(id);
        // One spelling only: the signature is over the text.
        if scope.to_string() == text { Ok(scope) } else { Err(ScopeError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_one_spelling() {
        let id = "instance:0192d3a8-7f3c-7d3e-8a51-0242ac120002";
        assert_eq!(id.parse::<Scope>().unwrap().to_string(), id);
        assert_eq!("all".parse(), Ok(Scope::All));
        for text in [
            "",
            "ALL",
            "instance:",
            "instance:0192D3A8-7F3C-7D3E-8A51-0242AC120002",
            "instance:0192d3a87f3c7d3e8a510242ac120002",
        ] {
            assert_eq!(text.parse::<Scope>(), Err(ScopeError), "{text}");
        }
    }
}
