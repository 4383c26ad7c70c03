//! Patterns that choose proto items, as users of prost and tonic know them.

/// Chooses packages, services and methods by their proto names.
///
/// With a leading dot it is the start of a full name (`.proto.Storage` chooses the service and its
/// methods, `.` everything), without one the end of it (`Storage`, `proto.Storage`). Whole name
/// parts only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl Pattern {
    pub(crate) fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// Whether it chooses the item with this full name, given without a leading dot.
    pub(crate) fn matches(&self, full_name: &str) -> bool {
        match self.0.strip_prefix('.') {
            Some("") => true,
            Some(start) => starts_with_parts(full_name, start),
            None => full_name
                .strip_suffix(&self.0)
                .is_some_and(|rest| !self.0.is_empty() && (rest.is_empty() || rest.ends_with('.'))),
        }
    }
}

/// Whether a dotted name begins with the parts of another.
pub(crate) fn starts_with_parts(full_name: &str, start: &str) -> bool {
    full_name
        .strip_prefix(start)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_parts_of_a_name() {
        for (pattern, name, expected) in [
            (".", "proto.Storage", true),
            (".proto", "proto.Storage", true),
            (".proto.Storage", "proto.Storage", true),
            (".proto.Storage", "proto.Storage.ReadQC", true),
            (".proto.Stor", "proto.Storage", false),
            (".Storage", "proto.Storage", false),
            ("Storage", "proto.Storage", true),
            ("proto.Storage", "proto.Storage", true),
            ("age", "proto.Storage", false),
            ("Storage", "Storage", true),
            ("", "proto.Storage", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(name),
                expected,
                "{pattern} on {name}"
            );
        }
    }
}
