use std::borrow::Cow;

/// So much is told of a text that a peer chose.
const CHARS: usize = 128;

/// The beginning of what a peer chose, a name or a path, for a text that says what is wrong with it. A
/// peer that sends long ones shall not get them back, nor fill a log.
pub(crate) fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters_and_says_so() {
        let longest = "ö".repeat(CHARS);
        for whole in ["", "short", &longest] {
            assert_eq!(excerpt(whole), whole);
        }
        let long = longest.clone() + "x";
        assert_eq!(excerpt(&long), longest + "…");
    }
}
