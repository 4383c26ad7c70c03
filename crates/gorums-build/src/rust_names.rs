//! Which Rust names the generated code declares, and where.
//!
//! Names that differ in a `.proto` file may be one name in Rust, and then the code would not
//! compile. prost does not look. So the names that prost gives are worked out here as well, and two
//! of one scope are a mistake, told in words of the `.proto` file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use prost_build::Module;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
};
use protox::file::{FileResolver, GoogleFileResolver};

use crate::descriptor::{File, path};
use crate::elements::{Element, for_each_element};
use crate::error::Diagnostic;
use crate::naming;
use crate::patterns::starts_with_parts;

/// The Rust names that are taken, with the proto item that has each.
pub(crate) struct RustNames<'a> {
    /// Proto paths, with a leading dot, that other code stands for.
    extern_paths: &'a [String],
    /// By the modules around it, joined by dots.
    owners: HashMap<(String, String), String>,
    /// The messages that some field requires.
    required: HashSet<String>,
    /// The types of protobuf that the crate `prost-types` has, if they are taken from there.
    well_known: Option<&'static HashSet<String>>,
}

impl<'a> RustNames<'a> {
    /// Takes the names of all messages and enums that are generated.
    pub(crate) fn new(
        files: &[File],
        extern_paths: &'a [String],
        uses_prost_types: bool,
        mistakes: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut names = Self {
            extern_paths,
            owners: HashMap::new(),
            required: required_messages(files),
            well_known: uses_prost_types.then(|| &*WELL_KNOWN_TYPES),
        };
        for file in files {
            let package = Place::of_package(file);
            let module = Module::from_protobuf_package_name(file.proto.package());
            if module.parts().any(str::is_empty) && names.is_generated(&file.proto) {
                mistakes.push(package.nameless());
            }
            for (index, message) in file.proto.message_type.iter().enumerate() {
                let place = package.item(("message", path::MESSAGE), index, message.name());
                names.add_message(&place, message, mistakes);
            }
            for (index, proto) in file.proto.enum_type.iter().enumerate() {
                let place = package.item(("enum", path::ENUM), index, proto.name());
                names.add_enum(&place, proto, mistakes);
            }
        }
        names
    }

    /// Takes the name of a module of a service, or returns the one who has it.
    pub(crate) fn add_service_module(
        &mut self,
        file: &File,
        module: &str,
        owner: &str,
    ) -> Option<String> {
        self.add(&scope_of(file.proto.package()), module, owner)
    }

    /// Takes the modules of packages, as an include file declares them.
    pub(crate) fn add_packages(&mut self, files: &[File], mistakes: &mut Vec<Diagnostic>) {
        let mut modules = HashSet::new();
        for file in files.iter().filter(|file| self.is_generated(&file.proto)) {
            let package = file.proto.package();
            let module = Module::from_protobuf_package_name(package);
            let parts: Vec<&str> = module.parts().collect();
            let mistake = |message: String, help: &str| {
                Diagnostic::new(Some(file.position(&[path::PACKAGE])), message).with_help(help)
            };
            for (depth, part) in parts.iter().enumerate() {
                let scope = parts[..depth].join(".");
                if !modules.insert((scope.clone(), (*part).to_owned())) {
                    continue;
                }
                if PRIMITIVE_TYPES.contains(part) && self.owners.keys().any(|key| key.0 == scope) {
                    mistakes.push(mistake(
                        format!("package `{package}`: its Rust module `{part}` hides a type of Rust in the package around it"),
                        "rename the package, or include the code without `include_file`",
                    ));
                } else if let Some(other) = self.owners.get(&(scope, (*part).to_owned())) {
                    mistakes.push(mistake(
                        format!("package `{package}`: its Rust module `{part}` is also that of {other}"),
                        "rename one of them, or include the code of each package without `include_file`",
                    ));
                }
            }
        }
    }

    fn is_generated(&self, file: &FileDescriptorProto) -> bool {
        let messages = file.message_type.iter().map(DescriptorProto::name);
        let enums = file.enum_type.iter().map(EnumDescriptorProto::name);
        !file.service.is_empty()
            || messages.chain(enums).any(|name| {
                let package = file.package();
                let dot = if package.is_empty() { "" } else { "." };
                !self.is_extern(&format!("{dot}{package}.{name}"))
            })
    }

    fn is_extern(&self, full_name: &str) -> bool {
        self.extern_paths
            .iter()
            .any(|path| starts_with_parts(full_name, path))
    }

    /// Takes a name, or returns the one who has it.
    fn add(&mut self, scope: &str, name: &str, owner: &str) -> Option<String> {
        let key = (scope.to_owned(), name.to_owned());
        match self.owners.get(&key) {
            Some(other) => Some(other.clone()),
            None => {
                self.owners.insert(key, owner.to_owned());
                None
            }
        }
    }

    /// Takes the name of a type.
    fn add_type(&mut self, place: &Place<'_>, name: &str, mistakes: &mut Vec<Diagnostic>) {
        if name.is_empty() {
            mistakes.push(place.nameless());
        } else if let Some(other) = self.add(&place.scope, name, &place.owner()) {
            mistakes.push(
                place
                    .mistake(format!("in Rust it is called `{name}`, as is {other}"))
                    .with_help(format!(
                        "rename one of them, or give an existing Rust type for the {} by `extern_path`",
                        place.kind
                    )),
            );
        }
    }

    fn add_message(
        &mut self,
        place: &Place<'_>,
        message: &DescriptorProto,
        mistakes: &mut Vec<Diagnostic>,
    ) {
        if self.is_extern(&place.full_name) {
            return;
        }
        self.add_type(place, &naming::type_name(message.name()), mistakes);
        let parts = Parts::of(message);
        self.check_fields(place, message, &parts, mistakes);

        if parts.has_module() {
            self.add_module(place, message.name(), mistakes);
        }
        for (index, nested) in &parts.messages {
            let place = place.nested(("message", path::NESTED_MESSAGE), *index, nested.name());
            self.add_message(&place, nested, mistakes);
        }
        for (index, nested) in message.enum_type.iter().enumerate() {
            let place = place.nested(("enum", path::NESTED_ENUM), index, nested.name());
            self.add_enum(&place, nested, mistakes);
        }
        for (index, name, fields) in &parts.oneofs {
            let oneof = place.nested(("oneof", path::ONEOF), *index, name);
            self.add_type(&oneof, &parts.oneof_type(message, name), mistakes);
            let mut variants = Names::default();
            for (index, field) in fields {
                let variant = naming::type_name(field.name());
                let place = place.item(FIELD, *index, field.name());
                variants.add(&place, variant, field.name(), mistakes);
            }
        }
    }

    /// Takes the module in which prost puts what is nested in a message.
    fn add_module(&mut self, place: &Place<'_>, name: &str, mistakes: &mut Vec<Diagnostic>) {
        let module = naming::message_module(name);
        let owner = format!("{}, which has something nested in it", place.owner());
        if PRIMITIVE_TYPES.contains(&module.as_str()) {
            mistakes.push(
                place
                    .mistake(format!(
                        "it has something nested in it, and the Rust module `{module}` for that hides a type of Rust"
                    ))
                    .with_help("rename the message, or move what is nested in it out of it"),
            );
        } else if module.is_empty() {
            // The type has no name either, which is told.
        } else if let Some(other) = self.add(&place.scope, &module, &owner) {
            mistakes.push(
                place
                    .mistake(format!(
                        "it has something nested in it, and the Rust module `{module}` for that is also that of {other}"
                    ))
                    .with_help("rename one of them"),
            );
        }
    }

    fn add_enum(
        &mut self,
        place: &Place<'_>,
        proto: &EnumDescriptorProto,
        mistakes: &mut Vec<Diagnostic>,
    ) {
        if self.is_extern(&place.full_name) {
            return;
        }
        let name = naming::type_name(proto.name());
        if DERIVED_TYPES.contains(&name.as_str()) {
            mistakes.push(
                place
                    .mistake(format!("the code of prost has a type `{name}` of its own"))
                    .with_help("rename the enum"),
            );
        }
        self.add_type(place, &name, mistakes);
        let mut variants = Names::default();
        let mut numbers = HashSet::new();
        for (index, value) in proto.value.iter().enumerate() {
            // prost leaves out further names of a number.
            if numbers.insert(value.number()) {
                let variant = naming::variant(&name, value.name());
                let place = place.item(("enum value", path::ENUM_VALUE), index, value.name());
                variants.add(&place, variant, value.name(), mistakes);
            }
        }
    }

    /// Checks the fields of a struct, and the methods that prost derives from them.
    fn check_fields(
        &self,
        place: &Place<'_>,
        message: &DescriptorProto,
        parts: &Parts<'_>,
        mistakes: &mut Vec<Diagnostic>,
    ) {
        let before = mistakes.len();
        let mut names = Names::default();
        for (index, field) in &parts.fields {
            let place = place.item(FIELD, *index, field.name());
            names.add(&place, naming::field(field.name()), field.name(), mistakes);
        }
        for (index, name, _) in &parts.oneofs {
            let place = place.item(("oneof", path::ONEOF), *index, name);
            names.add(&place, naming::field(name), name, mistakes);
        }
        let message_name = place.full_name.clone();
        let are_distinct = mistakes.len() == before;
        let mut methods = Names {
            of_methods: true,
            ..Names::default()
        };
        for (index, field) in &parts.fields {
            let place = place.item(FIELD, *index, field.name());
            let ident = naming::field(field.name());
            let map_value = parts.map_value(field);
            if map_value.is_some_and(|value| value.r#type() == Type::Enum)
                && ident.starts_with("r#")
            {
                mistakes.push(
                    place
                        .mistake("a map to an enum cannot have a keyword of Rust for its name, because prost makes other names of it")
                        .with_help("rename the field"),
                );
                continue;
            }
            // Fields of one name would have methods of one name too.
            if are_distinct {
                for method in derived_methods(place.file, field, map_value, &ident) {
                    if method == "clear" && self.required.contains(&message_name) {
                        mistakes.push(
                            place
                                .mistake("prost makes a method `clear` of it, which hides the `clear` that a required field of this message calls")
                                .with_help("rename the field, or make the other one optional"),
                        );
                    }
                    methods.add(&place, method, field.name(), mistakes);
                }
            }
        }
        for (index, field) in message.field.iter().enumerate() {
            let value = parts.map_value(field).unwrap_or(field);
            if let Some(mistake) = self.unknown_type(value.type_name()) {
                let place = place.item(FIELD, index, field.name());
                mistakes.push(place.mistake(mistake).with_help(UNKNOWN_TYPE_HELP));
            }
        }
    }

    /// What is wrong with a type of protobuf's own that has no Rust type.
    pub(crate) fn unknown_type(&self, full_name: &str) -> Option<String> {
        let well_known = self.well_known?;
        let is_unknown = full_name.starts_with(WELL_KNOWN_PACKAGE)
            && self
                .extern_paths
                .iter()
                .filter(|path| starts_with_parts(full_name, path))
                .all(|path| path == WELL_KNOWN_PACKAGE.trim_end_matches('.'))
            && !well_known.contains(full_name);
        is_unknown.then(|| {
            format!(
                "the crate prost-types has no type `{}`",
                full_name.trim_start_matches('.')
            )
        })
    }
}

pub(crate) const UNKNOWN_TYPE_HELP: &str =
    "generate the types of protobuf too, by `compile_well_known_types(true)`";

const WELL_KNOWN_PACKAGE: &str = ".google.protobuf.";

const FIELD: (&str, i32) = ("field", path::FIELD);

/// A module of one of these names would hide the type from the code beside it.
const PRIMITIVE_TYPES: [&str; 10] = [
    "bool", "f32", "f64", "i32", "i64", "str", "u32", "u64", "u8", "usize",
];

/// Types that prost declares in functions where it also names enums.
const DERIVED_TYPES: [&str; 5] = [
    "Inner",
    "KeyWrapper",
    "MapWrapper",
    "ScalarWrapper",
    "ValueWrapper",
];

/// The full names, with a leading dot, of what prost-types was made of.
static WELL_KNOWN_TYPES: LazyLock<HashSet<String>> = LazyLock::new(well_known_types);

fn well_known_types() -> HashSet<String> {
    let files = [
        "any",
        "api",
        "descriptor",
        "duration",
        "empty",
        "field_mask",
        "source_context",
        "struct",
        "timestamp",
        "type",
        "wrappers",
        "compiler/plugin",
    ];
    let resolver = GoogleFileResolver::new();
    let mut names = HashSet::new();
    for file in files {
        // A file that protox no longer has gives no types.
        if let Ok(file) = resolver.open_file(&format!("google/protobuf/{file}.proto")) {
            let proto = file.file_descriptor_proto();
            let package = format!(".{}", proto.package());
            add_types(&package, &proto.message_type, &proto.enum_type, &mut names);
        }
    }
    names
}

fn add_types(
    around: &str,
    messages: &[DescriptorProto],
    enums: &[EnumDescriptorProto],
    names: &mut HashSet<String>,
) {
    names.extend(
        enums
            .iter()
            .map(|proto| format!("{around}.{}", proto.name())),
    );
    for message in messages {
        let name = format!("{around}.{}", message.name());
        add_types(&name, &message.nested_type, &message.enum_type, names);
        names.insert(name);
    }
}

/// The full names, with a leading dot, of the messages that a field has to have.
fn required_messages(files: &[File]) -> HashSet<String> {
    let mut names = HashSet::new();
    for file in files {
        for_each_element(&file.proto, &mut |_, _, element| {
            if let Element::Field(field) = element
                && field.label() == Label::Required
            {
                names.insert(field.type_name().to_owned());
            }
        });
    }
    names
}

fn scope_of(package: &str) -> String {
    let module = Module::from_protobuf_package_name(package);
    module.parts().collect::<Vec<_>>().join(".")
}

/// The methods that prost derives of a field, none of which may have the name of another.
fn derived_methods(
    file: &File,
    field: &FieldDescriptorProto,
    map_value: Option<&FieldDescriptorProto>,
    ident: &str,
) -> Vec<String> {
    let bare = ident.trim_start_matches("r#");
    match (map_value.unwrap_or(field).r#type(), map_value) {
        (Type::Enum, Some(_)) => vec![format!("get_{bare}"), format!("insert_{bare}")],
        (_, Some(_)) | (Type::Message | Type::Group, None) => Vec::new(),
        (Type::Enum, None) if field.label() == Label::Repeated => {
            vec![ident.to_owned(), format!("push_{bare}")]
        }
        (Type::Enum, None) => vec![ident.to_owned(), format!("set_{bare}")],
        _ => {
            let is_optional = field.proto3_optional()
                || (field.label() == Label::Optional && file.proto.syntax() != "proto3");
            if is_optional {
                vec![ident.to_owned()]
            } else {
                Vec::new()
            }
        }
    }
}

/// A field and its index in the message.
type Indexed<'a> = (usize, &'a FieldDescriptorProto);

/// What a message consists of, as prost sees it.
struct Parts<'a> {
    /// Without the entries of maps.
    messages: Vec<(usize, &'a DescriptorProto)>,
    entries: BTreeMap<&'a str, &'a DescriptorProto>,
    fields: Vec<Indexed<'a>>,
    /// Index, name and fields. What `optional` stands for in proto3 is none.
    oneofs: Vec<(usize, &'a str, Vec<Indexed<'a>>)>,
    has_enums: bool,
}

impl<'a> Parts<'a> {
    fn of(message: &'a DescriptorProto) -> Self {
        let is_entry = |nested: &DescriptorProto| {
            nested
                .options
                .as_ref()
                .is_some_and(|options| options.map_entry())
        };
        let (entries, messages) = message
            .nested_type
            .iter()
            .enumerate()
            .partition::<Vec<_>, _>(|(_, nested)| is_entry(nested));
        let (in_oneofs, fields) =
            message
                .field
                .iter()
                .enumerate()
                .partition::<Vec<_>, _>(|(_, field)| {
                    field.oneof_index.is_some() && !field.proto3_optional()
                });
        let oneofs = message
            .oneof_decl
            .iter()
            .enumerate()
            .map(|(index, oneof)| {
                let belongs = |field: &FieldDescriptorProto| {
                    usize::try_from(field.oneof_index()).is_ok_and(|of| of == index)
                };
                let fields = in_oneofs
                    .iter()
                    .copied()
                    .filter(|(_, field)| belongs(field));
                (index, oneof.name(), fields.collect::<Vec<_>>())
            })
            .filter(|(_, _, fields)| !fields.is_empty())
            .collect();
        Self {
            messages,
            entries: entries
                .into_iter()
                .map(|(_, entry)| (entry.name(), entry))
                .collect(),
            fields,
            oneofs,
            has_enums: !message.enum_type.is_empty(),
        }
    }

    fn has_module(&self) -> bool {
        !self.messages.is_empty() || !self.oneofs.is_empty() || self.has_enums
    }

    /// The value of a map.
    fn map_value(&self, field: &FieldDescriptorProto) -> Option<&'a FieldDescriptorProto> {
        let (_, name) = field.type_name().rsplit_once('.')?;
        self.entries.get(name)?.field.get(1)
    }

    fn oneof_type(&self, message: &DescriptorProto, name: &str) -> String {
        let oneof = naming::type_name(name);
        let messages = self.messages.iter().map(|(_, nested)| nested.name());
        let entries = self.entries.keys().copied();
        let enums = message.enum_type.iter().map(EnumDescriptorProto::name);
        let is_taken = messages
            .chain(entries)
            .chain(enums)
            .any(|nested| naming::type_name(nested) == oneof);
        if is_taken {
            format!("{oneof}OneOf")
        } else {
            oneof
        }
    }
}

/// The names of one struct or enum, by what has them.
#[derive(Default)]
struct Names<'a> {
    owners: HashMap<String, &'a str>,
    of_methods: bool,
}

impl<'a> Names<'a> {
    fn add(
        &mut self,
        place: &Place<'_>,
        name: String,
        proto_name: &'a str,
        mistakes: &mut Vec<Diagnostic>,
    ) {
        if name.is_empty() {
            mistakes.push(place.nameless());
        } else if let Some(other) = self.owners.get(&name) {
            let message = if self.of_methods {
                format!("prost makes a method `{name}` of it, as it does of `{other}`")
            } else {
                format!("in Rust its name is `{name}`, as is that of `{other}`")
            };
            mistakes.push(place.mistake(message).with_help("rename one of the two"));
        } else {
            self.owners.insert(name, proto_name);
        }
    }
}

/// A proto item, and where it is declared.
struct Place<'a> {
    file: &'a File,
    /// What it is, in words.
    kind: &'static str,
    /// The Rust modules around it.
    scope: String,
    /// With a leading dot.
    full_name: String,
    path: Vec<i32>,
}

impl<'a> Place<'a> {
    fn of_package(file: &'a File) -> Self {
        let package = file.proto.package();
        let dot = if package.is_empty() { "" } else { "." };
        Self {
            file,
            kind: "package",
            scope: scope_of(package),
            full_name: format!("{dot}{package}"),
            path: Vec::new(),
        }
    }

    /// An item that is declared in this one.
    fn item(&self, (kind, number): (&'static str, i32), index: usize, name: &str) -> Self {
        let mut path = self.path.clone();
        path.extend([number, path::index(index)]);
        Self {
            file: self.file,
            kind,
            scope: self.scope.clone(),
            full_name: format!("{}.{name}", self.full_name),
            path,
        }
    }

    /// The same in the module of this message.
    fn nested(&self, kind: (&'static str, i32), index: usize, name: &str) -> Self {
        let (_, own_name) = self.full_name.rsplit_once('.').unwrap_or_default();
        let module = naming::message_module(own_name);
        Self {
            scope: [self.scope.as_str(), &module].join("."),
            ..self.item(kind, index, name)
        }
    }

    fn owner(&self) -> String {
        format!("{} `{}`", self.kind, self.full_name.trim_start_matches('.'))
    }

    fn mistake(&self, message: impl AsRef<str>) -> Diagnostic {
        let mut path = self.path.clone();
        path.push(if path.is_empty() {
            path::PACKAGE
        } else {
            path::NAME
        });
        let message = format!("{}: {}", self.owner(), message.as_ref());
        Diagnostic::new(Some(self.file.position(&path)), message)
    }

    fn nameless(&self) -> Diagnostic {
        self.mistake("the name has no letter or digit, so it gives no Rust name")
            .with_help(format!("rename the {}", self.kind))
    }
}
