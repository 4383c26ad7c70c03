//! Names in scopes, resolved as `protoc` does.
//!
//! The library that checks descriptors looks for the first part of a name among the packages of
//! all files that it knows, so files that are not imported can hide what is meant. Every name that
//! can be resolved is therefore made a full one before.

use std::collections::BTreeMap;
use std::rc::Rc;

use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use crate::elements::{Element, for_each_element, for_each_options};
use crate::model::full_name;

/// What a file declares, and the files that it passes on.
#[derive(Debug, Default)]
pub(crate) struct Declarations {
    file: String,
    by_name: BTreeMap<String, Declared>,
    /// Its public imports.
    public: Vec<Rc<Declarations>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Declared {
    Package,
    Message,
    Enum,
    Service,
    Extension,
    /// Fields, oneofs, enum values and methods.
    Other,
}

impl Declared {
    /// Whether names with several parts go on from here.
    fn has_names(self) -> bool {
        matches!(
            self,
            Self::Package | Self::Message | Self::Enum | Self::Service
        )
    }

    fn is_type(self) -> bool {
        matches!(self, Self::Message | Self::Enum)
    }
}

impl Declarations {
    /// What a file declares. `imports` are those of its imports, in order.
    pub(crate) fn of(file: &FileDescriptorProto, imports: &[Rc<Declarations>]) -> Self {
        let mut by_name = BTreeMap::new();
        let package = file.package();
        for (end, _) in package.match_indices('.').chain([(package.len(), "")]) {
            by_name.insert(package[..end].to_owned(), Declared::Package);
        }
        let mut add = |scope: &str, name: &str, declared| {
            by_name.insert(full_name(scope, name), declared);
        };
        for_each_element(file, &mut |scope, _, element| match element {
            Element::Message(message) => add(scope, message.name(), Declared::Message),
            Element::Enum(of) => {
                add(scope, of.name(), Declared::Enum);
                // A value stands beside its enum, not in it.
                for value in &of.value {
                    add(scope, value.name(), Declared::Other);
                }
            }
            Element::Field(field) => add(scope, field.name(), Declared::Other),
            Element::Extension(extension) => add(scope, extension.name(), Declared::Extension),
        });
        for service in &file.service {
            add(package, service.name(), Declared::Service);
            let scope = full_name(package, service.name());
            for method in &service.method {
                add(&scope, method.name(), Declared::Other);
            }
        }
        let public = file.public_dependency.iter().filter_map(|index| {
            let index = usize::try_from(*index).ok()?;
            imports.get(index).cloned()
        });
        Self {
            file: file.name().to_owned(),
            by_name,
            public: public.collect(),
        }
    }

    fn with_public<'a>(&'a self, all: &mut Vec<&'a Self>) {
        if all.iter().any(|other| other.file == self.file) {
            return;
        }
        all.push(self);
        for public in &self.public {
            public.with_public(all);
        }
    }
}

/// The names of the files that imports make visible: their own, and those that they pass on.
pub(crate) fn visible_files(imports: &[Rc<Declarations>]) -> Vec<&str> {
    let mut visible = Vec::new();
    for import in imports {
        import.with_public(&mut visible);
    }
    visible.iter().map(|file| file.file.as_str()).collect()
}

/// Makes every name in a file a full one that its declarations and those of its imports resolve.
/// The others stay, and are refused later.
///
/// The values `inf` and `nan` of options are given as numbers beside, which the checking library
/// wants for a float.
pub(crate) fn resolve(
    file: &mut FileDescriptorProto,
    own: &Declarations,
    imports: &[Rc<Declarations>],
) {
    let mut visible = vec![own];
    for import in imports {
        import.with_public(&mut visible);
    }
    let scopes = Scopes { visible };
    let package = file.package().to_owned();
    for message in &mut file.message_type {
        scopes.resolve_message(message, &package);
    }
    for extension in &mut file.extension {
        scopes.resolve_field(extension, &package);
    }
    for service in &mut file.service {
        let scope = full_name(&package, service.name());
        for method in &mut service.method {
            scopes.resolve_type(&mut method.input_type, &scope);
            scopes.resolve_type(&mut method.output_type, &scope);
        }
    }
    for_each_options(file, &mut |place, options| {
        for option in options.iter_mut() {
            option.double_value =
                option
                    .double_value
                    .or(match option.identifier_value.as_deref() {
                        Some("inf") => Some(f64::INFINITY),
                        Some("nan") => Some(f64::NAN),
                        _ => None,
                    });
        }
        for part in options.iter_mut().flat_map(|option| &mut option.name) {
            if part.is_extension {
                let found = scopes.find(&part.name_part, place.scope, |declared| {
                    declared == Declared::Extension
                });
                if let Some((name, _)) = found {
                    part.name_part = name;
                }
            }
        }
    });
}

struct Scopes<'a> {
    visible: Vec<&'a Declarations>,
}

impl Scopes<'_> {
    fn resolve_message(&self, message: &mut DescriptorProto, scope: &str) {
        let scope = full_name(scope, message.name());
        let fields = message.field.iter_mut().chain(&mut message.extension);
        for field in fields {
            self.resolve_field(field, &scope);
        }
        for nested in &mut message.nested_type {
            self.resolve_message(nested, &scope);
        }
    }

    fn resolve_field(&self, field: &mut FieldDescriptorProto, scope: &str) {
        if let Some(declared) = self.resolve_type(&mut field.type_name, scope)
            && field.r#type.is_none()
        {
            field.set_type(match declared {
                Declared::Enum => Type::Enum,
                _ => Type::Message,
            });
        }
        self.resolve_type(&mut field.extendee, scope);
    }

    fn resolve_type(&self, name: &mut Option<String>, scope: &str) -> Option<Declared> {
        let (full, declared) = self.find(name.as_deref()?, scope, Declared::is_type)?;
        *name = Some(full);
        Some(declared)
    }

    /// Looks in a scope and those around it, and returns the name with a dot before it.
    fn find(
        &self,
        name: &str,
        scope: &str,
        is_meant: impl Fn(Declared) -> bool,
    ) -> Option<(String, Declared)> {
        let meant = |full: &str| {
            let declared = self.declared(full).filter(|declared| is_meant(*declared))?;
            Some((format!(".{full}"), declared))
        };
        if let Some(full) = name.strip_prefix('.') {
            return meant(full);
        }
        let mut scope = Some(scope);
        while let Some(here) = scope {
            let full = full_name(here, name);
            match name.split_once('.') {
                // The innermost scope that has the first part is the one that is meant.
                Some((first, _)) => {
                    if self
                        .declared(&full_name(here, first))
                        .is_some_and(Declared::has_names)
                    {
                        return meant(&full);
                    }
                }
                None => {
                    if let Some(found) = meant(&full) {
                        return Some(found);
                    }
                }
            }
            scope = match here.rsplit_once('.') {
                Some((around, _)) => Some(around),
                None if here.is_empty() => None,
                None => Some(""),
            };
        }
        None
    }

    fn declared(&self, full: &str) -> Option<Declared> {
        self.visible
            .iter()
            .find_map(|file| file.by_name.get(full))
            .copied()
    }
}
