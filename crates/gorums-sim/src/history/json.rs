//! Inputs and outputs as people read them.

use std::fmt;

use serde_json::{Map, Value};

/// A value as Rust would show what it was made from: `Enqueue(5)` for `{"Enqueue":5}`.
pub(super) struct Shown<'a>(pub(super) &'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("nothing"),
            Value::Bool(_) | Value::Number(_) => self.0.fmt(f),
            Value::String(text) if is_word(text) => f.write_str(text),
            Value::String(text) => write!(f, "{text:?}"),
            Value::Array(values) => list(f, "[", values, "]"),
            Value::Object(fields) => {
                let mut entries = fields.iter();
                match (entries.next(), entries.next()) {
                    // As serde writes the variant of an enum.
                    (Some((name, Value::Array(values))), None) => {
                        f.write_str(name)?;
                        list(f, "(", values, ")")
                    }
                    (Some((name, Value::Object(inner))), None) => {
                        write!(f, "{name} ")?;
                        record(f, inner)
                    }
                    (Some((name, value)), None) => write!(f, "{name}({})", Shown(value)),
                    _ => record(f, fields),
                }
            }
        }
    }
}

/// The name of the variant, or of what the value is else.
pub(super) fn kind(value: &Value) -> &str {
    match value {
        Value::String(name) => name,
        Value::Object(fields) if fields.len() == 1 => {
            fields.keys().next().map_or("", String::as_str)
        }
        _ => "",
    }
}

fn list(f: &mut fmt::Formatter<'_>, open: &str, values: &[Value], close: &str) -> fmt::Result {
    f.write_str(open)?;
    for (at, value) in values.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        write!(f, "{comma}{}", Shown(value))?;
    }
    f.write_str(close)
}

fn record(f: &mut fmt::Formatter<'_>, fields: &Map<String, Value>) -> fmt::Result {
    f.write_str("{")?;
    for (at, (name, value)) in fields.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        write!(f, "{comma}{name}: {}", Shown(value))?;
    }
    f.write_str("}")
}

/// Whether a text needs no quotes.
fn is_word(text: &str) -> bool {
    let plain = |character: char| character.is_alphanumeric() || "_-.:/".contains(character);
    !text.is_empty() && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_shown_as_what_they_were_made_from() {
        for (value, expected) in [
            (json!(null), "nothing"),
            (json!(true), "true"),
            (json!("Acquire"), "Acquire"),
            (json!("two words"), "\"two words\""),
            (json!(""), "\"\""),
            (json!({"Enqueue": 5}), "Enqueue(5)"),
            (json!({"Swap": [1, "a"]}), "Swap(1, a)"),
            (
                json!({"Swap": {"from": 1, "to": null}}),
                "Swap {from: 1, to: nothing}",
            ),
            (json!({"Appended": {"place": 0}}), "Appended {place: 0}"),
            (json!({"a": [1, 2], "b": {}}), "{a: [1, 2], b: {}}"),
        ] {
            assert_eq!(Shown(&value).to_string(), expected);
        }
    }
}
