//! Protobuf editions, put in terms of proto3.
//!
//! prost knows proto2 and proto3. A file of an edition says by *features* how each of its elements
//! behaves, and what an element does not say it has from the one around it. Here the features are
//! resolved, and the descriptors are given the form in which proto3 means the same. What it has no
//! form for is refused by the name of the feature.

use std::collections::HashMap;

use prost::Message;
use prost::encoding::{DecodeContext, WireType, bytes, decode_key, skip_field};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    OneofDescriptorProto, UninterpretedOption,
};

use crate::descriptor::path;
use crate::elements::for_each_options;
use crate::error::{Diagnostic, Error, Position};
use crate::source;

/// The editions that are taken: their names, and their numbers in descriptors.
pub(crate) const EDITIONS: [(&str, i32); 2] = [("2023", 1000), ("2024", 1001)];

/// The features that matter here, as an element states them. Those of other languages are
/// extensions of this message, which are skipped.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct FeatureSet {
    #[prost(int32, optional, tag = "1")]
    field_presence: Option<i32>,
    #[prost(int32, optional, tag = "2")]
    enum_type: Option<i32>,
    #[prost(int32, optional, tag = "3")]
    repeated_field_encoding: Option<i32>,
    #[prost(int32, optional, tag = "4")]
    utf8_validation: Option<i32>,
    #[prost(int32, optional, tag = "5")]
    message_encoding: Option<i32>,
}

const EXPLICIT: i32 = 1;
const IMPLICIT: i32 = 2;
const LEGACY_REQUIRED: i32 = 3;
const CLOSED: i32 = 2;
const EXPANDED: i32 = 2;
const NO_VALIDATION: i32 = 3;
const DELIMITED: i32 = 2;

/// What all editions so far begin with.
const DEFAULTS: FeatureSet = FeatureSet {
    field_presence: Some(EXPLICIT),
    enum_type: Some(1),
    repeated_field_encoding: Some(1),
    utf8_validation: Some(2),
    message_encoding: Some(1),
};

impl FeatureSet {
    /// What an element has that states `own` within one that has these.
    fn with(self, own: Option<&Self>) -> Self {
        let Some(own) = own else { return self };
        Self {
            field_presence: own.field_presence.or(self.field_presence),
            enum_type: own.enum_type.or(self.enum_type),
            repeated_field_encoding: own.repeated_field_encoding.or(self.repeated_field_encoding),
            utf8_validation: own.utf8_validation.or(self.utf8_validation),
            message_encoding: own.message_encoding.or(self.message_encoding),
        }
    }

    /// Sets a feature by its name, or says what is wrong.
    fn set(&mut self, feature: &str, value: &str) -> Result<(), String> {
        let Some((_, values)) = FEATURES.iter().find(|(name, _)| *name == feature) else {
            return Err(format!("there is no feature `{feature}`"));
        };
        let Some((_, number)) = values.iter().find(|(name, _)| *name == value) else {
            let names: Vec<_> = values.iter().map(|(name, _)| format!("`{name}`")).collect();
            return Err(format!(
                "the feature `{feature}` has no value `{value}`, but {}",
                names.join(", ")
            ));
        };
        match feature {
            "field_presence" => self.field_presence = Some(*number),
            "enum_type" => self.enum_type = Some(*number),
            "repeated_field_encoding" => self.repeated_field_encoding = Some(*number),
            "utf8_validation" => self.utf8_validation = Some(*number),
            "message_encoding" => self.message_encoding = Some(*number),
            // The others say nothing about code for Rust.
            _ => {}
        }
        Ok(())
    }
}

/// The features of protobuf itself, and the numbers of their values.
const FEATURES: [(&str, &[(&str, i32)]); 8] = [
    (
        "field_presence",
        &[
            ("EXPLICIT", EXPLICIT),
            ("IMPLICIT", IMPLICIT),
            ("LEGACY_REQUIRED", LEGACY_REQUIRED),
        ],
    ),
    ("enum_type", &[("OPEN", 1), ("CLOSED", CLOSED)]),
    (
        "repeated_field_encoding",
        &[("PACKED", 1), ("EXPANDED", EXPANDED)],
    ),
    ("utf8_validation", &[("VERIFY", 2), ("NONE", NO_VALIDATION)]),
    (
        "message_encoding",
        &[("LENGTH_PREFIXED", 1), ("DELIMITED", DELIMITED)],
    ),
    ("json_format", &[("ALLOW", 1), ("LEGACY_BEST_EFFORT", 2)]),
    (
        "enforce_naming_style",
        &[("STYLE2024", 1), ("STYLE_LEGACY", 2)],
    ),
    (
        "default_symbol_visibility",
        &[
            ("EXPORT_ALL", 1),
            ("EXPORT_TOP_LEVEL", 2),
            ("LOCAL_ALL", 3),
            ("STRICT", 4),
        ],
    ),
];

/// What elements of a file state, by the descriptor paths of the elements.
#[derive(Debug, Default)]
pub(crate) struct Stated {
    features: HashMap<Vec<i32>, FeatureSet>,
    /// Defaults of fields under the name that they have for the parser.
    defaults: HashMap<Vec<i32>, UninterpretedOption>,
}

/// What keeps a file of an edition from being lowered, and the descriptor path of the place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unable {
    pub(crate) path: Vec<i32>,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Unable {
    fn new(path: &[i32], message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            message: message.into(),
            help: None,
        }
    }

    fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// As a mistake at the position of its path.
    pub(crate) fn at(&self, position: Position) -> Diagnostic {
        let mistake = Diagnostic::new(Some(position), &self.message);
        match &self.help {
            Some(help) => mistake.with_help(help),
            None => mistake,
        }
    }
}

/// The mistake of a file of an edition that is not taken.
pub(crate) fn refused(position: Position, what: &str) -> Diagnostic {
    Diagnostic::new(Some(position), format!("{what} is not supported")).with_help(
        "the editions are 2023 and 2024; or begin with `syntax = \"proto3\";`, and take out `option features.…` and what else is of the edition",
    )
}

impl Stated {
    /// Reads the features out of an encoded `FileDescriptorProto`, since prost's messages drop
    /// them.
    pub(crate) fn decode(file: &[u8]) -> Result<Self, Error> {
        let mut stated = Self::default();
        stated
            .decode_element(ElementKind::File, file, &mut Vec::new())
            .map_err(Error::descriptor)?;
        Ok(stated)
    }

    fn decode_element(
        &mut self,
        kind: ElementKind,
        mut encoded: &[u8],
        at: &mut Vec<i32>,
    ) -> Result<(), prost::DecodeError> {
        let mut counts: HashMap<i32, usize> = HashMap::new();
        while !encoded.is_empty() {
            let (number, wire_type) = decode_key(&mut encoded)?;
            let field = i32::try_from(number).unwrap_or_default();
            let (child, features) = (kind.child(field), kind.features(field));
            if wire_type != WireType::LengthDelimited || (child.is_none() && features.is_none()) {
                skip_field(wire_type, number, &mut encoded, DecodeContext::default())?;
                continue;
            }
            let mut part = Vec::new();
            bytes::merge(wire_type, &mut part, &mut encoded, DecodeContext::default())?;
            if let Some(child) = child {
                let index = counts.entry(field).or_default();
                at.extend([field, path::index(*index)]);
                *index += 1;
                self.decode_element(child, &part, at)?;
                at.truncate(at.len() - 2);
            } else if let Some(features) = features {
                let mut options = part.as_slice();
                while !options.is_empty() {
                    let (number, wire_type) = decode_key(&mut options)?;
                    if number == features && wire_type == WireType::LengthDelimited {
                        let entry = self.features.entry(at.clone()).or_default();
                        let context = DecodeContext::default();
                        prost::encoding::message::merge(wire_type, entry, &mut options, context)?;
                    } else {
                        skip_field(wire_type, number, &mut options, DecodeContext::default())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the features out of the options of a parsed file.
    pub(crate) fn take_from(file: &mut FileDescriptorProto) -> Result<Self, Vec<Unable>> {
        let mut stated = Self::default();
        let mut unable = Vec::new();
        let mut taken: HashMap<Vec<i32>, Vec<i32>> = HashMap::new();
        for_each_options(file, &mut |place, options| {
            let mut index = 0;
            options.retain(|option| {
                index += 1;
                let options_path = [place.element, &[place.field]].concat();
                if is_default(option) {
                    taken.entry(options_path).or_default().push(index - 1);
                    let element = place.element.to_owned();
                    stated.defaults.insert(element, option.clone());
                    return false;
                }
                if !is_feature(option) {
                    return true;
                }
                let entry = stated.features.entry(place.element.to_owned()).or_default();
                if let Err(message) = read_feature(entry, option) {
                    let option = [path::UNINTERPRETED_OPTION, index - 1];
                    unable.push(Unable::new(&[&options_path[..], &option].concat(), message));
                }
                taken.entry(options_path).or_default().push(index - 1);
                false
            });
        });
        if !unable.is_empty() {
            return Err(unable);
        }
        renumber_options(file, &taken);
        Ok(stated)
    }

    /// Gives a file of an edition the form of proto3. The types of its fields have to be known.
    pub(crate) fn lower(&self, file: &mut FileDescriptorProto) -> Result<(), Vec<Unable>> {
        let mut lowering = Lowering {
            stated: self,
            at: Vec::new(),
            unable: Vec::new(),
        };
        let features = DEFAULTS.with(self.features.get(&[][..]));
        file.syntax = Some("proto3".to_owned());
        lowering.each(
            path::MESSAGE,
            &mut file.message_type,
            |lowering, message| {
                lowering.message(message, features);
            },
        );
        lowering.each(path::ENUM, &mut file.enum_type, |lowering, of| {
            lowering.enumeration(of, features);
        });
        lowering.each(
            path::EXTENSION,
            &mut file.extension,
            |lowering, extension| {
                lowering.extension(extension, features);
            },
        );
        if lowering.unable.is_empty() {
            Ok(())
        } else {
            Err(lowering.unable)
        }
    }
}

/// The elements that features matter for.
#[derive(Clone, Copy)]
enum ElementKind {
    File,
    Message,
    Field,
    Enum,
}

impl ElementKind {
    fn child(self, field: i32) -> Option<Self> {
        Some(match (self, field) {
            (Self::File, path::MESSAGE) | (Self::Message, path::NESTED_MESSAGE) => Self::Message,
            (Self::File, path::ENUM) | (Self::Message, path::NESTED_ENUM) => Self::Enum,
            (Self::File, path::EXTENSION)
            | (Self::Message, path::FIELD | path::NESTED_EXTENSION) => Self::Field,
            _ => return None,
        })
    }

    /// The number of the features in the options, if `field` has these.
    fn features(self, field: i32) -> Option<u32> {
        match (self, field) {
            (Self::File, path::FILE_OPTIONS) => Some(50),
            (Self::Message, path::MESSAGE_OPTIONS) => Some(12),
            (Self::Field, path::FIELD_OPTIONS) => Some(21),
            (Self::Enum, path::ENUM_OPTIONS) => Some(7),
            _ => None,
        }
    }
}

/// Whether it is a default under the name that it has for the parser.
fn is_default(option: &UninterpretedOption) -> bool {
    matches!(option.name.as_slice(), [part] if part.name_part == source::DEFAULT)
}

fn is_feature(option: &UninterpretedOption) -> bool {
    let first = option.name.first();
    first.is_some_and(|part| part.name_part == "features" && !part.is_extension)
}

/// Reads `features.NAME = VALUE` or `features = { NAME: VALUE … }`.
fn read_feature(features: &mut FeatureSet, option: &UninterpretedOption) -> Result<(), String> {
    match option.name.as_slice() {
        [_, name] if !name.is_extension => match &option.identifier_value {
            Some(value) => features.set(&name.name_part, value),
            None => Err(format!(
                "the feature `{}` is set to something that is not the name of a value",
                name.name_part
            )),
        },
        // A feature of another language.
        [_, extension, ..] if extension.is_extension => Ok(()),
        [_] => read_features(
            features,
            option.aggregate_value.as_deref().unwrap_or_default(),
        ),
        _ => Err("a feature has a name of one part".to_owned()),
    }
}

/// Reads the text of an aggregate, whose tokens the parser has put a space between.
fn read_features(features: &mut FeatureSet, text: &str) -> Result<(), String> {
    let mut tokens = text.split_whitespace().peekable();
    while let Some(token) = tokens.next() {
        match token {
            "," | ";" => {}
            // `[pb.go] { … }`: one of another language.
            "[" => {
                let mut depth = 0_usize;
                for token in tokens.by_ref() {
                    match token {
                        "{" | "<" => depth += 1,
                        "}" | ">" => {
                            depth = depth.saturating_sub(1);
                            if depth == 0 {
                                break;
                            }
                        }
                        _ => {}
                    }
                }
            }
            name => match (tokens.next(), tokens.next()) {
                (Some(":"), Some(value)) => features.set(name, value)?,
                _ => return Err(format!("a value is wanted after `{name}:`")),
            },
        }
    }
    Ok(())
}

/// Adapts the positions of options to those before them that were taken out.
fn renumber_options(file: &mut FileDescriptorProto, taken: &HashMap<Vec<i32>, Vec<i32>>) {
    let Some(info) = file.source_code_info.as_mut().filter(|_| !taken.is_empty()) else {
        return;
    };
    info.location.retain_mut(|location| {
        // `ELEMENT OPTIONS 999 INDEX …`, where numbers on the way may be 999 as well.
        for at in 1..location.path.len().saturating_sub(1) {
            if location.path[at] == path::UNINTERPRETED_OPTION
                && let Some(indexes) = taken.get(&location.path[..at])
            {
                let index = location.path[at + 1];
                if indexes.contains(&index) {
                    return false;
                }
                let before = indexes.iter().filter(|taken| **taken < index).count();
                location.path[at + 1] -= path::index(before);
                break;
            }
        }
        true
    });
}

struct Lowering<'a> {
    stated: &'a Stated,
    /// The descriptor path of the element at hand.
    at: Vec<i32>,
    unable: Vec<Unable>,
}

impl Lowering<'_> {
    fn each<T>(
        &mut self,
        field: i32,
        elements: &mut [T],
        mut lower: impl FnMut(&mut Self, &mut T),
    ) {
        for (index, element) in elements.iter_mut().enumerate() {
            self.at.extend([field, path::index(index)]);
            lower(self, element);
            self.at.truncate(self.at.len() - 2);
        }
    }

    /// What the element at hand has, within one that has `around`.
    fn features(&self, around: FeatureSet) -> FeatureSet {
        around.with(self.stated.features.get(&self.at))
    }

    fn unable(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.unable
            .push(Unable::new(&self.at, message).with_help(help));
    }

    fn message(&mut self, message: &mut DescriptorProto, around: FeatureSet) {
        let features = self.features(around);
        let mut fields = std::mem::take(&mut message.field);
        self.each(path::FIELD, &mut fields, |lowering, field| {
            lowering.field(field, message, features);
        });
        message.field = fields;
        self.each(
            path::NESTED_MESSAGE,
            &mut message.nested_type,
            |lowering, nested| {
                // The fields of an entry are those of the map.
                if !is_map_entry(nested) {
                    lowering.message(nested, features);
                }
            },
        );
        self.each(path::NESTED_ENUM, &mut message.enum_type, |lowering, of| {
            lowering.enumeration(of, features);
        });
        self.each(
            path::NESTED_EXTENSION,
            &mut message.extension,
            |lowering, extension| {
                lowering.extension(extension, features);
            },
        );
    }

    fn field(
        &mut self,
        field: &mut FieldDescriptorProto,
        message: &mut DescriptorProto,
        around: FeatureSet,
    ) {
        self.no_label(field);
        self.take_default(field);
        let features = self.features(around);
        let entry = message.nested_type.iter().find(|nested| {
            is_map_entry(nested)
                && field.label() == Label::Repeated
                && field.type_name().rsplit('.').next() == Some(nested.name())
        });
        if let Some(entry) = entry {
            if entry
                .field
                .iter()
                .any(|field| field.r#type() == Type::String)
            {
                self.check_strings(features);
            }
            return;
        }
        if field.r#type() == Type::String {
            self.check_strings(features);
        }
        encoding(field, features);
        if field.label() == Label::Repeated || field.oneof_index.is_some() {
            return;
        }
        // A message is there or not, whatever its presence.
        let is_message = matches!(field.r#type(), Type::Message | Type::Group);
        match features.field_presence {
            Some(LEGACY_REQUIRED) => field.set_label(Label::Required),
            Some(IMPLICIT) if !is_message => {
                if field.default_value.is_some() {
                    self.unable(
                        "a field with `features.field_presence = IMPLICIT` cannot have a default",
                        "remove the default, or write `[features.field_presence = EXPLICIT]`",
                    );
                }
            }
            _ => make_optional(field, message),
        }
    }

    fn extension(&mut self, extension: &mut FieldDescriptorProto, around: FeatureSet) {
        self.no_label(extension);
        self.take_default(extension);
        // prost has no extensions, so it does not matter how their strings are checked.
        encoding(extension, self.features(around));
    }

    fn check_strings(&mut self, features: FeatureSet) {
        if features.utf8_validation == Some(NO_VALIDATION) {
            self.unable(
                "`features.utf8_validation = NONE` cannot be kept: a string in Rust is UTF-8",
                "make the field `bytes`, which are the same on the wire, or have it verified",
            );
        }
    }

    fn enumeration(&mut self, of: &EnumDescriptorProto, around: FeatureSet) {
        if self.features(around).enum_type == Some(CLOSED) && !of.value.is_empty() {
            self.unable(
                "`features.enum_type = CLOSED` cannot be kept: a field of prost takes any number",
                "leave the enum open, which is the default, and check the numbers that are read",
            );
        }
    }

    /// `optional` is what proto3 knows, and editions do not.
    fn no_label(&mut self, field: &mut FieldDescriptorProto) {
        if field.proto3_optional() {
            let mut unable = Unable::new(&self.at, "editions have no `optional`");
            unable.path.push(path::LABEL);
            self.unable.push(unable.with_help(
                "remove it: a field has presence unless `features.field_presence` says otherwise",
            ));
        }
    }

    /// The parser refuses `default` in proto3, so it was given another name.
    fn take_default(&mut self, field: &mut FieldDescriptorProto) {
        let Some(option) = self.stated.defaults.get(&self.at) else {
            return;
        };
        if field.label() == Label::Repeated {
            self.unable(
                "a repeated field cannot have a default",
                "remove the default",
            );
        }
        field.default_value = default_value(option, field.r#type());
        if field.default_value.is_none() {
            self.unable(
                "the default is not a value of the field's type",
                "write a number, a string, `true`, `false`, or the name of an enum's value",
            );
        }
    }
}

/// How a field is written, whatever its presence.
fn encoding(field: &mut FieldDescriptorProto, features: FeatureSet) {
    match field.r#type() {
        Type::Message if features.message_encoding == Some(DELIMITED) => {
            field.set_type(Type::Group);
        }
        Type::Message | Type::Group | Type::Bytes | Type::String => {}
        _ if field.label() == Label::Repeated
            && features.repeated_field_encoding == Some(EXPANDED) =>
        {
            field.options.get_or_insert_default().packed = Some(false);
        }
        _ => {}
    }
}

/// The text that descriptors have for a default.
fn default_value(option: &UninterpretedOption, of: Type) -> Option<String> {
    let float = matches!(of, Type::Float | Type::Double);
    let integer = !matches!(of, Type::Bool | Type::String | Type::Bytes | Type::Enum);
    if let Some(word) = &option.identifier_value {
        return (!integer || float).then(|| word.clone());
    }
    if let Some(bytes) = &option.string_value {
        return match of {
            Type::String => String::from_utf8(bytes.clone()).ok(),
            Type::Bytes => Some(escaped(bytes)),
            _ => None,
        };
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "as a float it is no more precise"
    )]
    let number = match (option.positive_int_value, option.negative_int_value) {
        (Some(positive), _) if float => Some(positive as f64),
        (_, Some(negative)) if float => Some(negative as f64),
        _ => option.double_value,
    };
    match number {
        Some(number) => float.then(|| number.to_string()),
        None if integer => option
            .positive_int_value
            .map(|number| number.to_string())
            .or_else(|| option.negative_int_value.map(|number| number.to_string())),
        None => None,
    }
}

/// Bytes with escapes as in C, the form of defaults in descriptors.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b'"' | b'\'' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\{byte:03o}")),
        }
    }
    text
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    let options = message.options.as_ref();
    options.is_some_and(prost_types::MessageOptions::map_entry)
}

/// Gives a field presence as proto3 has it: in a oneof of its own, behind those of the file.
fn make_optional(field: &mut FieldDescriptorProto, message: &mut DescriptorProto) {
    let mut name = format!("_{}", field.name());
    while message.oneof_decl.iter().any(|oneof| oneof.name() == name) {
        name.insert(0, 'X');
    }
    field.proto3_optional = Some(true);
    field.oneof_index = Some(path::index(message.oneof_decl.len()));
    message.oneof_decl.push(OneofDescriptorProto {
        name: Some(name),
        options: None,
    });
}
