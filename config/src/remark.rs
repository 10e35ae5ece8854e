//! What can be said about a configuration: where, about which key, and what to do.
//!
//! Always: one line each, and never the value of a key that may hold a secret.

use std::fmt;

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file, at a line counted from 1 (unset: the file as a whole).
    File {
        /// The file as it was named.
        file: String,
        /// The line, from 1.
        line: Option<usize>,
    },
    /// In the environment, in the variable of this name.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line: Some(line) } => write!(f, "{file}:{line}"),
            Self::File { file, line: None } => f.write_str(file),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// One thing to tell the person who wrote the configuration: its place, the key's whole path and the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Where it stands.
    pub place: Place,
    /// The key with its path (`tls.key_file`); empty if it is about the file as a whole.
    pub key: String,
    /// What is wrong and what to do, in one line.
    pub text: String,
}

/// A remark that does not keep the program from starting.
pub type Warning = Remark;

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.place, self.text),
            key => write!(f, "{}: {key}: {}", self.place, self.text),
        }
    }
}

/// How many mistakes are displayed: more than a person makes, fewer than a wrong file has.
const MAX_SHOWN: usize = 100;

/// Everything that is wrong with a configuration, one line each, in the order of the keys' description.
///
/// Displays the first hundred; a file with more is most likely another program's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(Vec<Remark>);

impl Mistakes {
    /// Joins remarks into one error; the caller has at least one.
    #[must_use]
    pub fn new(remarks: Vec<Remark>) -> Self {
        Self(remarks)
    }

    /// One mistake about a file as a whole, or about one of its lines.
    #[must_use]
    pub fn in_file(file: &str, line: Option<usize>, text: impl Into<String>) -> Self {
        let place = Place::File { file: file.to_owned(), line };
        Self(vec![Remark { place, key: String::new(), text: text.into() }])
    }

    /// The mistakes one by one.
    #[must_use]
    pub fn remarks(&self) -> &[Remark] {
        &self.0
    }

    /// The mistakes, to be joined with others.
    #[must_use]
    pub fn into_remarks(self) -> Vec<Remark> {
        self.0
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, remark) in self.0.iter().take(MAX_SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            remark.fmt(f)?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more mistakes; is it the right file?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_lines_and_a_wrong_file_does_not_fill_the_screen() {
        let remark = |line| Remark {
            place: Place::File { file: "f.yaml".to_owned(), line: Some(line) },
            key: "a.b".to_owned(),
            text: "is wrong".to_owned(),
        };
        let two = Mistakes::new(vec![remark(1), remark(2)]).to_string();
        assert_eq!(two, "f.yaml:1: a.b: is wrong\nf.yaml:2: a.b: is wrong");
        let many = Mistakes::new((0..1000).map(remark).collect()).to_string();
        assert_eq!(many.lines().count(), 101);
        assert!(many.ends_with("\nand 900 more mistakes; is it the right file?"));
    }
}
