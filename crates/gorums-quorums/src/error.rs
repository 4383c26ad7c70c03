use std::error::Error;
use std::fmt;

/// Why something cannot be told of a quorum system, or is no figure of one; the text says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnalysisError(String);

impl AnalysisError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for AnalysisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for AnalysisError {}
