//! What is wrong with a policy set: file, line, what, and what to do.

use std::fmt;

use super::limits;

/// Why a set was not loaded. Nothing changed.
#[derive(Debug, Clone, thiserror::Error)]
pub struct PolicyError {
    /// Every fault found, 50 at most; never empty.
    pub faults: Vec<Fault>,
}

/// One thing to put right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// Path inside the policy folder; empty if it is about the set as a whole.
    pub file: String,
    /// Line in the file, from 1, where one can be named.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("cannot be read ({0}); make the folder and its files readable")]
    Unreadable(String),
    #[error("is a link to something outside the policy folder; put the file itself there")]
    LinksOut,
    #[error("is not UTF-8 text; save it as UTF-8")]
    NotUtf8,
    #[error(
        "has no place in a policy folder; name it scheme/*.cedar, country/<two letters>/*.cedar or \
         agency/<domain>/<name>/*.cedar, with tests beside it or in tests/ as *.tests.json"
    )]
    UnknownPath,
    #[error("is given twice; give it once")]
    DuplicatePath,
    #[error("there are more than {} files; join some", limits::FILES)]
    TooManyFiles,
    #[error("has more than {} bytes; split it", limits::FILE_BYTES)]
    FileTooLarge,
    #[error("the files together have more than {} bytes; shorten them", limits::SET_BYTES)]
    SetTooLarge,
    #[error(
        "there are more than {} policies; replace many alike by one that names a group",
        limits::POLICIES
    )]
    TooManyPolicies,
    #[error("there are more than {} tests; keep the telling ones", limits::TESTS)]
    TooManyTests,
    #[error(
        "there is no policy in scheme/, so nobody would be refused anything; write the federation's scheme"
    )]
    NoScheme,
    #[error("{0}")]
    Syntax(String),
    #[error(
        "is a template (it has ?principal or ?resource); write a policy that names a group, a sector or a \
         country instead"
    )]
    Template,
    #[error("the policy has no @{0}; write @{0}(\"...\") above it")]
    MissingAnnotation(&'static str),
    #[error("@{0} must have 1 to {max} characters on one line; rewrite it", max = limits::ANNOTATION_CHARS)]
    BadAnnotation(&'static str),
    #[error("@{0} is unknown; a policy has @id, @owner, @legal_basis and @explain")]
    UnknownAnnotation(String),
    #[error(
        "@id(\"{0}\") must have 1 to {max} characters of a-z, 0-9, '-', '_' and '.'; rename it",
        max = limits::ID_CHARS
    )]
    BadId(String),
    #[error("@id(\"{id}\") is taken by the policy at {file}:{line} of the same layer; rename one of them")]
    DuplicateId { id: String, file: String, line: usize },
    #[error("policy {id} names {name}, which cannot exist: {expected}")]
    BadName { id: String, name: String, expected: &'static str },
    #[error("policy {id} does not fit the schema: {error}")]
    Invalid { id: String, error: String },
    #[error("these tests cannot be read: {0}")]
    TestSyntax(String),
    #[error("test \"{test}\" cannot run: {error}")]
    TestSetup { test: String, error: String },
    #[error("test \"{test}\" fails: {error}; correct the policy or the test")]
    TestFails { test: String, error: String },
}

impl Problem {
    pub(super) fn at(self, file: &str, line: usize) -> Fault {
        Fault { file: file.to_owned(), line: Some(line), problem: self }
    }

    pub(super) fn in_file(self, file: &str) -> Fault {
        Fault { file: file.to_owned(), line: None, problem: self }
    }

    pub(super) fn in_set(self) -> Fault {
        self.in_file("")
    }
}

impl PolicyError {
    /// An error if there is a fault; the first ones are kept.
    pub(super) fn unless_empty(mut faults: Vec<Fault>) -> Result<(), Self> {
        faults.truncate(limits::FAULTS);
        if faults.is_empty() { Ok(()) } else { Err(Self { faults }) }
    }
}

impl From<Fault> for PolicyError {
    fn from(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => write!(f, "policy set: {}", self.problem),
            (file, None) => write!(f, "{file}: {}", self.problem),
            (file, Some(line)) => write!(f, "{file}:{line}: {}", self.problem),
        }
    }
}
