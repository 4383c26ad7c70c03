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

use crate::error::{Error, Position};

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
#[derive(Debug)]
pub(crate) enum Targets {
    All,
    Named(BTreeSet<String>),
}

impl Targets {
    pub(crate) fn contains(&self, file: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(file),
        }
    }
}

/// One file of the set.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) proto: prost_types::FileDescriptorProto,
    /// What messages call the file.
    pub(crate) shown_as: String,
    /// Whether the services of this file are generated.
    pub(crate) is_target: bool,
    /// The call options by service and method, in the order of `proto`.
    options: Vec<Vec<Vec<CallOption>>>,
}

impl DescriptorSet {
    /// Decodes all files.
    pub(crate) fn files(&self) -> Result<Vec<File>, Error> {
        let known = prost_types::FileDescriptorSet::decode(self.encoded.as_slice())
            .map_err(Error::descriptor)?;
        let mirror = MirrorFileSet::decode(self.encoded.as_slice()).map_err(Error::descriptor)?;
        known
            .file
            .into_iter()
            .zip(mirror.file)
            .map(|(proto, mirror)| {
                let shown_as = match self.paths.get(proto.name()) {
                    Some(path) => path.display().to_string(),
                    None => proto.name().to_owned(),
                };
                Ok(File {
                    is_target: self.targets.contains(proto.name()),
                    shown_as,
                    proto,
                    options: mirror.call_options()?,
                })
            })
            .collect()
    }
}

impl File {
    /// The options of one method that concern Gorums.
    pub(crate) fn call_options(&self, service: usize, method: usize) -> &[CallOption] {
        &self.options[service][method]
    }

    /// The start of the element at a descriptor path, or of the nearest element around it.
    pub(crate) fn position(&self, path: &[i32]) -> Position {
        let locations = self
            .proto
            .source_code_info
            .as_ref()
            .map_or(&[][..], |info| info.location.as_slice());
        let start = (1..=path.len())
            .rev()
            .find_map(|length| find(locations, &path[..length]));
        Position {
            file: self.shown_as.clone(),
            start,
        }
    }
}

/// Line and column, counted from 1, of the first location with exactly this path.
fn find(locations: &[Location], path: &[i32]) -> Option<(u32, u32)> {
    let location = locations.iter().find(|location| location.path == path)?;
    let line = u32::try_from(*location.span.first()?).ok()?;
    let column = u32::try_from(*location.span.get(1)?).ok()?;
    Some((line + 1, column + 1))
}

/// Field numbers on the way to a method's options, for positions.
pub(crate) mod path {
    pub(crate) const SYNTAX: i32 = 12;
    pub(crate) const SERVICE: i32 = 6;
    pub(crate) const METHOD: i32 = 2;
    pub(crate) const OPTIONS: i32 = 4;
    pub(crate) const CLIENT_STREAMING: i32 = 5;
    pub(crate) const SERVER_STREAMING: i32 = 6;
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

#[derive(Clone, PartialEq, Message)]
struct MirrorFile {
    #[prost(message, repeated, tag = "6")]
    service: Vec<MirrorService>,
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
    fn call_options(&self) -> Result<Vec<Vec<Vec<CallOption>>>, Error> {
        let of_service = |service: &MirrorService| {
            service
                .method
                .iter()
                .map(|method| read_call_options(method.options.as_deref().unwrap_or_default()))
                .collect()
        };
        self.service.iter().map(of_service).collect()
    }
}

/// Reads the Gorums options out of an encoded `google.protobuf.MethodOptions`, in the order of
/// their numbers.
fn read_call_options(mut encoded: &[u8]) -> Result<Vec<CallOption>, Error> {
    let mut options = BTreeMap::new();
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
        if let Some(kind) = kind {
            options.insert(kind, value);
        }
    }
    Ok(options
        .into_iter()
        .map(|(kind, value)| CallOption { kind, value })
        .collect())
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
            read_call_options(&encoded).expect("well-formed"),
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
        let options = read_call_options(&encoded).expect("well-formed");
        assert_eq!(
            options,
            [CallOption {
                kind: OptionKind::Multicast,
                value: None
            }]
        );
    }

    #[test]
    fn truncated_options_are_an_error() {
        assert!(read_call_options(&[0xff]).is_err());
    }
}
