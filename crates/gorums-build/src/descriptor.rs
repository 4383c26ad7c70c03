//! Descriptor sets as the generator sees them: prost's messages, with the call options that prost
//! drops put back.
//!
//! `prost_types::MethodOptions` knows no extension, so decoding with it loses every Gorums option.
//! The bytes are therefore decoded twice: once by `prost_types`, for everything that it keeps, and
//! once by a mirror of the same messages that only goes down to the encoded options of each method.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::source_code_info::Location;

use crate::error::{Diagnostic, Error, Position};
use crate::{editions, source};

/// Encoded descriptors, and what the generator has to know beside them.
#[derive(Debug)]
pub(crate) struct DescriptorSet {
    /// A `google.protobuf.FileDescriptorSet` with all imports, dependencies first.
    pub(crate) encoded: Vec<u8>,
    /// The files whose services are generated. An imported file gives its messages only.
    pub(crate) targets: Targets,
    /// Where a file was read from, by its name in the descriptors. Messages show the path, which an
    /// editor can open.
    pub(crate) paths: BTreeMap<String, PathBuf>,
}

/// The files of a descriptor set whose services are generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Targets {
    /// The files that no other file of the set imports.
    NotImported,
    Named(BTreeSet<String>),
}

/// One file of the set.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) proto: prost_types::FileDescriptorProto,
    /// What messages call the file.
    pub(crate) shown_as: String,
    /// Whether the services of this file are generated.
    pub(crate) is_target: bool,
    /// The options of Gorums by service and method, in the order of `proto`.
    options: Vec<Vec<MethodOptions>>,
}

impl DescriptorSet {
    /// Decodes all files, and gives those of an edition the form of proto3.
    pub(crate) fn files(&self) -> Result<Vec<File>, Error> {
        let known = prost_types::FileDescriptorSet::decode(self.encoded.as_slice())
            .map_err(Error::descriptor)?;
        let mirror = MirrorFileSet::decode(self.encoded.as_slice()).map_err(Error::descriptor)?;
        let encoded = EncodedFiles::decode(self.encoded.as_slice()).map_err(Error::descriptor)?;
        let targets = self.target_names(&known.file)?;
        let declared = DeclaredOptions::of(&known.file);
        let mut files = Vec::new();
        let mut mistakes = Vec::new();
        for ((proto, mirror), encoded) in known.file.into_iter().zip(mirror.file).zip(encoded.file)
        {
            // They would give a module of their own.
            if source::declares_features(proto.name()) {
                continue;
            }
            let shown_as = match self.paths.get(proto.name()) {
                Some(path) => path.display().to_string(),
                None => proto.name().to_owned(),
            };
            let mut file = File {
                is_target: targets.contains(proto.name()),
                shown_as,
                proto,
                options: mirror.method_options(&declared)?,
            };
            if file.proto.syntax() == "editions" {
                mistakes.extend(file.lower(mirror.edition(), &encoded)?);
            }
            files.push(file);
        }
        mistakes.extend(missing_imports(&files));
        if mistakes.is_empty() {
            Ok(files)
        } else {
            Err(Error::proto(mistakes))
        }
    }

    fn target_names(
        &self,
        files: &[prost_types::FileDescriptorProto],
    ) -> Result<BTreeSet<String>, Error> {
        let names = || files.iter().map(|file| file.name().to_owned());
        match &self.targets {
            Targets::Named(targets) => {
                let present: BTreeSet<String> = names().collect();
                match targets.difference(&present).next() {
                    None => Ok(targets.clone()),
                    Some(missing) => Err(Error::setting(format!(
                        "the file `{missing}` is not in the descriptor set, which has {}",
                        listed(&present)
                    ))),
                }
            }
            Targets::NotImported => {
                let imported: BTreeSet<&String> =
                    files.iter().flat_map(|file| &file.dependency).collect();
                Ok(names().filter(|name| !imported.contains(name)).collect())
            }
        }
    }
}

/// Names in quotes, one after the other.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() {
        "none".to_owned()
    } else {
        quoted.join(", ")
    }
}

/// prost-build needs the messages of all imports.
fn missing_imports(files: &[File]) -> Vec<Diagnostic> {
    let present: BTreeSet<&str> = files.iter().map(|file| file.proto.name()).collect();
    let mut missing = Vec::new();
    for file in files {
        for (index, import) in file.proto.dependency.iter().enumerate() {
            if !present.contains(import.as_str()) && !source::declares_features(import) {
                let position = file.position(&[path::DEPENDENCY, path::index(index)]);
                let message = format!("its import `{import}` is not in the descriptor set");
                let mistake = Diagnostic::new(Some(position), message);
                missing.push(mistake.with_help(
                    "make the set with `--include_imports`, as in `protoc --include_imports --include_source_info --descriptor_set_out=FILE`",
                ));
            }
        }
    }
    missing
}

impl File {
    /// The options of one method that concern Gorums.
    pub(crate) fn options(&self, service: usize, method: usize) -> &MethodOptions {
        &self.options[service][method]
    }

    /// Whether any method of a service has an option of Gorums.
    pub(crate) fn has_options(&self, service: usize) -> bool {
        self.options[service]
            .iter()
            .any(|method| !method.calls.is_empty() || !method.outdated.is_empty())
    }

    /// Gives a file of an edition the form of proto3, or returns the mistakes that prevent it.
    fn lower(&mut self, edition: i32, encoded: &[u8]) -> Result<Vec<Diagnostic>, Error> {
        if !editions::EDITIONS
            .iter()
            .any(|(_, number)| *number == edition)
        {
            let position = self.position(&[path::SYNTAX]);
            let what = format!("the edition with the number {edition}");
            return Ok(vec![editions::refused(position, &what)]);
        }
        let lowered = editions::Stated::decode(encoded)?.lower(&mut self.proto);
        Ok(match lowered {
            Ok(()) => Vec::new(),
            Err(unable) => unable
                .into_iter()
                .map(|unable| unable.at(self.position(&unable.path)))
                .collect(),
        })
    }

    /// The start of the element at a descriptor path, or of the nearest element around it.
    pub(crate) fn position(&self, path: &[i32]) -> Position {
        position(&self.proto, &self.shown_as, path)
    }
}

/// The start of the element at a descriptor path of a file, or of the nearest element around it.
pub(crate) fn position(
    file: &prost_types::FileDescriptorProto,
    shown_as: &str,
    path: &[i32],
) -> Position {
    let locations = file
        .source_code_info
        .as_ref()
        .map_or(&[][..], |info| info.location.as_slice());
    let start = (1..=path.len())
        .rev()
        .find_map(|length| find(locations, &path[..length]));
    Position {
        file: shown_as.to_owned(),
        start,
    }
}

/// Line and column, counted from 1, of the first location with exactly this path.
fn find(locations: &[Location], path: &[i32]) -> Option<(u32, u32)> {
    let location = locations.iter().find(|location| location.path == path)?;
    let line = u32::try_from(*location.span.first()?).ok()?;
    let column = u32::try_from(*location.span.get(1)?).ok()?;
    Some((line + 1, column + 1))
}

/// The field numbers of which descriptor paths consist.
pub(crate) mod path {
    // In everything that has one.
    pub(crate) const NAME: i32 = 1;

    // In a file.
    pub(crate) const PACKAGE: i32 = 2;
    pub(crate) const DEPENDENCY: i32 = 3;
    pub(crate) const MESSAGE: i32 = 4;
    pub(crate) const ENUM: i32 = 5;
    pub(crate) const SERVICE: i32 = 6;
    pub(crate) const EXTENSION: i32 = 7;
    pub(crate) const FILE_OPTIONS: i32 = 8;
    pub(crate) const SYNTAX: i32 = 12;

    // In a message.
    pub(crate) const FIELD: i32 = 2;
    pub(crate) const NESTED_MESSAGE: i32 = 3;
    pub(crate) const NESTED_ENUM: i32 = 4;
    pub(crate) const EXTENSION_RANGE: i32 = 5;
    pub(crate) const NESTED_EXTENSION: i32 = 6;
    pub(crate) const MESSAGE_OPTIONS: i32 = 7;
    pub(crate) const ONEOF: i32 = 8;
    pub(crate) const EXTENSION_RANGE_OPTIONS: i32 = 3;
    pub(crate) const ONEOF_OPTIONS: i32 = 2;

    // In a field.
    pub(crate) const LABEL: i32 = 4;
    pub(crate) const FIELD_OPTIONS: i32 = 8;

    // In an enum.
    pub(crate) const ENUM_VALUE: i32 = 2;
    pub(crate) const ENUM_OPTIONS: i32 = 3;
    pub(crate) const ENUM_VALUE_OPTIONS: i32 = 3;

    // In a service and in its methods.
    pub(crate) const METHOD: i32 = 2;
    pub(crate) const SERVICE_OPTIONS: i32 = 3;
    pub(crate) const OPTIONS: i32 = 4;
    pub(crate) const CLIENT_STREAMING: i32 = 5;
    pub(crate) const SERVER_STREAMING: i32 = 6;

    /// In any options: those that nobody has interpreted.
    pub(crate) const UNINTERPRETED_OPTION: i32 = 999;

    /// An index in a path.
    pub(crate) fn index(index: usize) -> i32 {
        i32::try_from(index).expect("protobuf limits a file to 2 GiB, so indexes in it fit")
    }
}

/// The options of `gorums.proto` that one method has.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct MethodOptions {
    /// Those that mean what their numbers say, in the order of these.
    pub(crate) calls: Vec<CallOption>,
    /// Those of a `gorums.proto` whose names and numbers are not ours.
    pub(crate) outdated: Vec<OutdatedOption>,
}

/// An option whose name or number in the user's `gorums.proto` is that of another version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutdatedOption {
    pub(crate) name: String,
    pub(crate) number: i32,
}

/// One of the options of `gorums.proto`, set on a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallOption {
    pub(crate) kind: OptionKind,
    /// `None` where the option is not a bool, as only an extension declared elsewhere under this
    /// number can be.
    pub(crate) value: Option<bool>,
}

/// The extension numbers of `google.protobuf.MethodOptions` that belong to Gorums, now or in the
/// past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OptionKind {
    Rpc,
    Unicast,
    Multicast,
    QuorumCall,
    Removed(RemovedOption),
}

/// Options that the Go library gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RemovedOption {
    Correctable,
    Async,
    PerNodeArg,
    CustomReturnType,
}

impl OptionKind {
    /// The call types and the removed options, by their names in `gorums.proto`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let all = [50001, 50002, 50003, 50004, 50005, 50010, 50020, 50030];
        all.into_iter()
            .filter_map(Self::from_number)
            .find(|kind| kind.name() == name)
    }

    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            50001 => Self::Rpc,
            50002 => Self::Unicast,
            50003 => Self::Multicast,
            50004 => Self::QuorumCall,
            50005 => Self::Removed(RemovedOption::Correctable),
            50010 => Self::Removed(RemovedOption::Async),
            50020 => Self::Removed(RemovedOption::PerNodeArg),
            50030 => Self::Removed(RemovedOption::CustomReturnType),
            _ => return None,
        })
    }

    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Rpc => 50001,
            Self::Unicast => 50002,
            Self::Multicast => 50003,
            Self::QuorumCall => 50004,
            Self::Removed(RemovedOption::Correctable) => 50005,
            Self::Removed(RemovedOption::Async) => 50010,
            Self::Removed(RemovedOption::PerNodeArg) => 50020,
            Self::Removed(RemovedOption::CustomReturnType) => 50030,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rpc => "rpc",
            Self::Unicast => "unicast",
            Self::Multicast => "multicast",
            Self::QuorumCall => "quorumcall",
            Self::Removed(RemovedOption::Correctable) => "correctable",
            Self::Removed(RemovedOption::Async) => "async",
            Self::Removed(RemovedOption::PerNodeArg) => "per_node_arg",
            Self::Removed(RemovedOption::CustomReturnType) => "custom_return_type",
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct MirrorFileSet {
    #[prost(message, repeated, tag = "1")]
    file: Vec<MirrorFile>,
}

/// The same set, whose files are not decoded.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EncodedFiles {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(crate) file: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct MirrorFile {
    #[prost(message, repeated, tag = "6")]
    service: Vec<MirrorService>,
    #[prost(int32, optional, tag = "14")]
    edition: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct MirrorService {
    #[prost(message, repeated, tag = "2")]
    method: Vec<MirrorMethod>,
}

#[derive(Clone, PartialEq, Message)]
struct MirrorMethod {
    // Kept encoded: a foreign extension may use one of our numbers with another type, which a
    // derived message could only answer with a decoding error that names neither file nor method.
    #[prost(bytes = "vec", optional, tag = "4")]
    options: Option<Vec<u8>>,
}

impl MirrorFile {
    fn method_options(&self, declared: &DeclaredOptions) -> Result<Vec<Vec<MethodOptions>>, Error> {
        let of_service = |service: &MirrorService| {
            service
                .method
                .iter()
                .map(|method| declared.read(method.options.as_deref().unwrap_or_default()))
                .collect()
        };
        self.service.iter().map(of_service).collect()
    }
}

/// The names that the package `gorums` of a descriptor set gives to options of methods, by number.
///
/// Options are read by number, so a `gorums.proto` with other numbers would silently change what
/// they mean: `quorumcall` was 50000 once.
#[derive(Debug, Default)]
struct DeclaredOptions(BTreeMap<u32, String>);

impl DeclaredOptions {
    fn of(files: &[prost_types::FileDescriptorProto]) -> Self {
        let declared = files
            .iter()
            .filter(|file| file.package() == "gorums")
            .flat_map(|file| &file.extension)
            .filter(|extension| extension.extendee() == ".google.protobuf.MethodOptions")
            .filter_map(|extension| {
                let number = u32::try_from(extension.number()).ok()?;
                Some((number, extension.name().to_owned()))
            });
        Self(declared.collect())
    }

    /// Reads the Gorums options out of an encoded `google.protobuf.MethodOptions`.
    fn read(&self, mut encoded: &[u8]) -> Result<MethodOptions, Error> {
        let mut calls = BTreeMap::new();
        let mut outdated = BTreeMap::new();
        while !encoded.is_empty() {
            let (number, wire_type) = decode_key(&mut encoded).map_err(Error::descriptor)?;
            let kind = OptionKind::from_number(number);
            let value = if kind.is_some() && wire_type == WireType::Varint {
                Some(decode_varint(&mut encoded).map_err(Error::descriptor)? != 0)
            } else {
                skip_field(wire_type, number, &mut encoded, DecodeContext::default())
                    .map_err(Error::descriptor)?;
                None
            };
            match (self.0.get(&number), kind) {
                (Some(name), kind) if kind.is_none_or(|kind| kind.name() != name) => {
                    outdated.insert(number, name);
                }
                (_, Some(kind)) => {
                    calls.insert(kind, value);
                }
                (_, None) => {}
            }
        }
        let outdated = outdated.into_iter().map(|(number, name)| OutdatedOption {
            name: name.clone(),
            number: i32::try_from(number).expect("numbers of fields have 29 bits"),
        });
        Ok(MethodOptions {
            calls: calls
                .into_iter()
                .map(|(kind, value)| CallOption { kind, value })
                .collect(),
            outdated: outdated.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::encoding::{bool, string};

    use super::*;

    #[test]
    fn options_are_read_by_number_among_others() {
        let mut encoded = Vec::new();
        bool::encode(33, &true, &mut encoded); // deprecated
        bool::encode(50004, &true, &mut encoded);
        string::encode(70000, &"foreign".to_owned(), &mut encoded);
        bool::encode(50002, &false, &mut encoded);
        assert_eq!(
            DeclaredOptions::default()
                .read(&encoded)
                .expect("well-formed")
                .calls,
            [
                CallOption {
                    kind: OptionKind::Unicast,
                    value: Some(false)
                },
                CallOption {
                    kind: OptionKind::QuorumCall,
                    value: Some(true)
                },
            ]
        );
    }

    #[test]
    fn an_option_of_another_type_has_no_value() {
        let mut encoded = Vec::new();
        string::encode(50003, &"not a bool".to_owned(), &mut encoded);
        let options = DeclaredOptions::default()
            .read(&encoded)
            .expect("well-formed");
        assert_eq!(
            options.calls,
            [CallOption {
                kind: OptionKind::Multicast,
                value: None
            }]
        );
    }

    #[test]
    fn truncated_options_are_an_error() {
        assert!(DeclaredOptions::default().read(&[0xff]).is_err());
    }
}
