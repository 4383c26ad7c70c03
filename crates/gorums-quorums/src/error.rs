use std::error::Error;
use std::fmt;

/// Why there is no strategy; the text says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrategyError(String);

impl StrategyError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for StrategyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for StrategyError {}
