//! Ways through the elements of a file.

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    UninterpretedOption,
};

use crate::descriptor::path;
use crate::model::full_name;

/// A declaration that is in a file or in a message of it.
pub(crate) enum Element<'a> {
    Message(&'a DescriptorProto),
    Enum(&'a EnumDescriptorProto),
    Field(&'a FieldDescriptorProto),
    Extension(&'a FieldDescriptorProto),
}

/// Visits all declarations with the full names of what they stand in and their own descriptor
/// paths, the outer ones first.
pub(crate) fn for_each_element<'a>(
    file: &'a FileDescriptorProto,
    visit: &mut impl FnMut(&str, &[i32], Element<'a>),
) {
    let package = file.package();
    for (index, message) in file.message_type.iter().enumerate() {
        let at = [path::MESSAGE, path::index(index)];
        in_message(message, package, &at, visit);
    }
    for (index, of) in file.enum_type.iter().enumerate() {
        visit(
            package,
            &[path::ENUM, path::index(index)],
            Element::Enum(of),
        );
    }
    for (index, extension) in file.extension.iter().enumerate() {
        let at = [path::EXTENSION, path::index(index)];
        visit(package, &at, Element::Extension(extension));
    }
}

fn in_message<'a>(
    message: &'a DescriptorProto,
    scope: &str,
    at: &[i32],
    visit: &mut impl FnMut(&str, &[i32], Element<'a>),
) {
    visit(scope, at, Element::Message(message));
    let scope = full_name(scope, message.name());
    let below = |field: i32, index: usize| [at, &[field, path::index(index)]].concat();
    for (index, field) in message.field.iter().enumerate() {
        visit(&scope, &below(path::FIELD, index), Element::Field(field));
    }
    for (index, of) in message.enum_type.iter().enumerate() {
        visit(&scope, &below(path::NESTED_ENUM, index), Element::Enum(of));
    }
    for (index, extension) in message.extension.iter().enumerate() {
        let at = below(path::NESTED_EXTENSION, index);
        visit(&scope, &at, Element::Extension(extension));
    }
    for (index, nested) in message.nested_type.iter().enumerate() {
        in_message(nested, &scope, &below(path::NESTED_MESSAGE, index), visit);
    }
}

/// Where options stand.
pub(crate) struct OptionsPlace<'a> {
    /// The descriptor path of the element that has them.
    pub(crate) element: &'a [i32],
    /// The field that they are in the element.
    pub(crate) field: i32,
    /// The full name of what the element stands in.
    pub(crate) scope: &'a str,
}

type Options = Vec<UninterpretedOption>;

/// Visits the options of all elements of a parsed file, which nobody has interpreted yet.
pub(crate) fn for_each_options(
    file: &mut FileDescriptorProto,
    visit: &mut impl FnMut(&OptionsPlace<'_>, &mut Options),
) {
    let package = file.package().to_owned();
    let mut walk = Walk {
        at: Vec::new(),
        visit,
    };
    walk.options(&mut file.options, path::FILE_OPTIONS, &package, |options| {
        &mut options.uninterpreted_option
    });
    walk.each(path::MESSAGE, &mut file.message_type, |walk, message| {
        walk.message(message, &package);
    });
    walk.each(path::ENUM, &mut file.enum_type, |walk, of| {
        walk.enumeration(of, &package);
    });
    walk.each(path::EXTENSION, &mut file.extension, |walk, extension| {
        walk.field(extension, &package);
    });
    walk.each(path::SERVICE, &mut file.service, |walk, service| {
        walk.options(
            &mut service.options,
            path::SERVICE_OPTIONS,
            &package,
            |options| &mut options.uninterpreted_option,
        );
        let scope = full_name(&package, service.name());
        walk.each(path::METHOD, &mut service.method, |walk, method| {
            walk.options(&mut method.options, path::OPTIONS, &scope, |options| {
                &mut options.uninterpreted_option
            });
        });
    });
}

struct Walk<'a, V> {
    at: Vec<i32>,
    visit: &'a mut V,
}

impl<V: FnMut(&OptionsPlace<'_>, &mut Options)> Walk<'_, V> {
    fn each<T>(
        &mut self,
        field: i32,
        elements: &mut [T],
        mut visit: impl FnMut(&mut Self, &mut T),
    ) {
        for (index, element) in elements.iter_mut().enumerate() {
            self.at.extend([field, path::index(index)]);
            visit(self, element);
            self.at.truncate(self.at.len() - 2);
        }
    }

    fn options<T>(
        &mut self,
        options: &mut Option<T>,
        field: i32,
        scope: &str,
        uninterpreted: impl FnOnce(&mut T) -> &mut Options,
    ) {
        if let Some(options) = options {
            let place = OptionsPlace {
                element: &self.at,
                field,
                scope,
            };
            (self.visit)(&place, uninterpreted(options));
        }
    }

    fn message(&mut self, message: &mut DescriptorProto, scope: &str) {
        self.options(
            &mut message.options,
            path::MESSAGE_OPTIONS,
            scope,
            |options| &mut options.uninterpreted_option,
        );
        let scope = full_name(scope, message.name());
        self.each(path::FIELD, &mut message.field, |walk, field| {
            walk.field(field, &scope);
        });
        self.each(
            path::NESTED_MESSAGE,
            &mut message.nested_type,
            |walk, nested| {
                walk.message(nested, &scope);
            },
        );
        self.each(path::NESTED_ENUM, &mut message.enum_type, |walk, of| {
            walk.enumeration(of, &scope);
        });
        self.each(
            path::EXTENSION_RANGE,
            &mut message.extension_range,
            |walk, range| {
                walk.options(
                    &mut range.options,
                    path::EXTENSION_RANGE_OPTIONS,
                    &scope,
                    |options| &mut options.uninterpreted_option,
                );
            },
        );
        self.each(
            path::NESTED_EXTENSION,
            &mut message.extension,
            |walk, field| {
                walk.field(field, &scope);
            },
        );
        self.each(path::ONEOF, &mut message.oneof_decl, |walk, oneof| {
            walk.options(&mut oneof.options, path::ONEOF_OPTIONS, &scope, |options| {
                &mut options.uninterpreted_option
            });
        });
    }

    fn field(&mut self, field: &mut FieldDescriptorProto, scope: &str) {
        self.options(&mut field.options, path::FIELD_OPTIONS, scope, |options| {
            &mut options.uninterpreted_option
        });
    }

    fn enumeration(&mut self, of: &mut EnumDescriptorProto, scope: &str) {
        self.options(&mut of.options, path::ENUM_OPTIONS, scope, |options| {
            &mut options.uninterpreted_option
        });
        let scope = full_name(scope, of.name());
        self.each(path::ENUM_VALUE, &mut of.value, |walk, value| {
            walk.options(
                &mut value.options,
                path::ENUM_VALUE_OPTIONS,
                &scope,
                |options| &mut options.uninterpreted_option,
            );
        });
    }
}
