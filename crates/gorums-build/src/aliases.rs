//! Second names of one number of an enum.

use std::collections::HashMap;

use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto};

use crate::descriptor::File;

/// Names the default values of enum fields by the first name of their number: prost makes no
/// variant of the others.
pub(crate) fn name_defaults_by_first(files: &mut [File]) {
    let mut first_names = HashMap::new();
    for file in files.iter() {
        let package = match file.proto.package() {
            "" => String::new(),
            package => format!(".{package}"),
        };
        let (messages, enums) = (&file.proto.message_type, &file.proto.enum_type);
        add_enums(&package, messages, enums, &mut first_names);
    }
    if first_names.is_empty() {
        return;
    }
    for file in files {
        for message in &mut file.proto.message_type {
            rename_defaults(message, &first_names);
        }
    }
}

/// The first names of the numbers of enums, by the full name of the enum and another name.
type FirstNames = HashMap<(String, String), String>;

fn add_enums(
    around: &str,
    messages: &[DescriptorProto],
    enums: &[EnumDescriptorProto],
    first_names: &mut FirstNames,
) {
    for proto in enums {
        let mut by_number = HashMap::new();
        for value in &proto.value {
            let first = *by_number.entry(value.number()).or_insert(value.name());
            if first != value.name() {
                let alias = (
                    format!("{around}.{}", proto.name()),
                    value.name().to_owned(),
                );
                first_names.insert(alias, first.to_owned());
            }
        }
    }
    for message in messages {
        let around = format!("{around}.{}", message.name());
        add_enums(
            &around,
            &message.nested_type,
            &message.enum_type,
            first_names,
        );
    }
}

fn rename_defaults(message: &mut DescriptorProto, first_names: &FirstNames) {
    let is_enum = |field: &&mut FieldDescriptorProto| field.r#type() == Type::Enum;
    for field in message.field.iter_mut().filter(is_enum) {
        let default = field.default_value().to_owned();
        if let Some(first) = first_names.get(&(field.type_name().to_owned(), default)) {
            field.default_value = Some(first.clone());
        }
    }
    for nested in &mut message.nested_type {
        rename_defaults(nested, first_names);
    }
}
