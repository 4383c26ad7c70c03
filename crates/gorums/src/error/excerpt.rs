use std::borrow::Cow;

/// How many characters are kept of a text that a peer chose.
const CHARS: usize = 128;

/// The beginning of a name or a path that a peer chose, for an error text. A peer that sends long
/// ones neither gets them back nor fills a log.
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
