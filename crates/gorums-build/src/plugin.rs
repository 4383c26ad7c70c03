//! The code generator as a plugin of `protoc` and `buf`: `protoc-gen-gorums-rust`.
//!
//! `cargo install --path crates/gorums-build` installs it, in a clone of the repository. `protoc`
//! finds it on the path by its name:
//!
//! ```console
//! $ protoc --gorums-rust_out=src/proto -I proto proto/storage.proto
//! $ protoc --gorums-rust_out=src/proto --gorums-rust_opt=build_server=false,include_file=mod.rs -I proto proto/storage.proto
//! ```
//!
//! and so does `buf generate`:
//!
//! ```yaml
//! version: v2
//! plugins:
//!   - local: protoc-gen-gorums-rust
//!     out: src/proto
//!     strategy: all # one run for all folders, since a package is one file
//!     opt: [include_file=mod.rs]
//! ```
//!
//! `gorums.proto` has to be where these look for imports; [`proto_include`](crate::proto_include)
//! says where this crate has it. The parameters are named after the settings of
//! [`Builder`], and `protoc-gen-gorums-rust --help` lists them.

use prost::Message;

use crate::builder::{Builder, configure};
use crate::descriptor::{DescriptorSet, EncodedFiles, Targets};
use crate::editions::EDITIONS;
use crate::error::{Diagnostic, Error};
use crate::output::IncludeFrom;

/// What `protoc-gen-gorums-rust --help` prints.
pub const HELP: &str = "\
Generates Rust code of Gorums. This is a plugin of protoc and buf, which run it:

    protoc --gorums-rust_out=FOLDER --gorums-rust_opt=PARAMETERS -I INCLUDE FILE...

Parameters are separated by commas; a comma in one is written `\\,`. Those with a PATH can be
given several times. A path chooses proto items: with a leading dot by the start of their full
name (`.proto.Storage`; `.` alone is everything), without one by its end (`Storage`).

    build_client=BOOL               whether to generate clients (true)
    build_server=BOOL               whether to generate servers (true)
    generate_default_stubs=BOOL     whether handlers have a body by default (false)
    compile_well_known_types=BOOL   whether to generate google.protobuf too (false)
    include_file=NAME               also writes a file that includes all others in modules
    services=PATH                   generates only services that such a path chooses
    skip_services=PATH              does not generate the services that it chooses
    extern_path=PROTO=RUST          uses a Rust type or module for a proto path
    type_attribute=PATH=ATTRIBUTE   also: message_, enum_, field_, client_, client_mod_,
                                    server_, server_mod_ and trait_attribute
    boxed=PATH                      puts fields into a Box
    btree_map=PATH                  uses a BTreeMap for maps
    bytes=PATH                      uses bytes::Bytes for fields of type bytes
    skip_debug=PATH                 leaves out Debug
    disable_comments=PATH           makes no documentation of comments

`=true` may be left out.
";

/// The answer to a request of `protoc`.
#[derive(Debug)]
pub struct Response {
    /// An encoded `google.protobuf.compiler.CodeGeneratorResponse`. Mistakes are in its field
    /// `error`.
    pub encoded: Vec<u8>,
    /// What is not wrong, but perhaps not meant either. A plugin tells it on standard error.
    pub warnings: Vec<Diagnostic>,
}

/// Answers an encoded `google.protobuf.compiler.CodeGeneratorRequest`.
#[must_use]
pub fn respond(request: &[u8]) -> Response {
    let (answer, warnings) = match generate(request) {
        Ok((files, warnings)) => (
            CodeGeneratorResponse {
                file: files,
                ..CodeGeneratorResponse::supporting()
            },
            warnings,
        ),
        Err(error) => (
            CodeGeneratorResponse {
                error: Some(error.to_string()),
                ..CodeGeneratorResponse::supporting()
            },
            Vec::new(),
        ),
    };
    Response {
        encoded: answer.encode_to_vec(),
        warnings,
    }
}

fn generate(request: &[u8]) -> Result<(Vec<GeneratedFile>, Vec<Diagnostic>), Error> {
    let request = CodeGeneratorRequest::decode(request).map_err(|error| {
        Error::setting(format!(
            "not an encoded google.protobuf.compiler.CodeGeneratorRequest: {error}"
        ))
    })?;
    let parameters = Parameters::parse(request.parameter())?;
    let descriptors = DescriptorSet {
        encoded: EncodedFiles {
            file: request.proto_file,
        }
        .encode_to_vec(),
        targets: Targets::Named(request.file_to_generate.into_iter().collect()),
        paths: std::collections::BTreeMap::new(),
    };
    let config = prost_build::Config::new();
    let generated = parameters
        .builder
        .generate(config, &descriptors, Vec::new())?;
    let file = |name: String, content: String| GeneratedFile {
        name: Some(name),
        content: Some(content),
    };
    let mut files: Vec<_> = generated
        .output
        .files()
        .map(|(name, code)| file(name, code.to_owned()))
        .collect();
    if let Some(name) = parameters.include_file {
        let content = generated.output.include_file(IncludeFrom::SameFolder);
        files.push(file(name, content));
    }
    Ok((files, generated.warnings))
}

/// The parameter of a request, which is a list of them.
struct Parameters {
    builder: Builder,
    include_file: Option<String>,
}

impl Parameters {
    fn parse(text: &str) -> Result<Self, Error> {
        let mut parameters = Self {
            // What a plugin writes is text.
            builder: configure().file_descriptor_sets(false),
            include_file: None,
        };
        for parameter in split(text) {
            parameters = parameters.with(&parameter)?;
        }
        Ok(parameters)
    }

    fn with(mut self, parameter: &str) -> Result<Self, Error> {
        let (key, value) = match parameter.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (parameter, None),
        };
        let flag = || match value {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(wrong(key, &format!("`true` or `false`, not `{other}`"))),
        };
        let text = || match value {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(wrong(key, &format!("a value, as in `{key}=VALUE`"))),
        };
        let pair = || {
            let pair = value.and_then(|value| value.split_once('='));
            pair.ok_or_else(|| wrong(key, &format!("two values, as in `{key}=PATH=VALUE`")))
        };
        let attribute = |set: fn(Builder, String, String) -> Builder, builder| {
            let (path, attribute) = pair()?;
            Ok::<_, Error>(set(builder, path.to_owned(), attribute.to_owned()))
        };
        let builder = self.builder;
        self.builder = match key {
            "build_client" => builder.build_client(flag()?),
            "build_server" => builder.build_server(flag()?),
            "generate_default_stubs" => builder.generate_default_stubs(flag()?),
            "compile_well_known_types" => builder.compile_well_known_types(flag()?),
            "include_file" => {
                self.include_file = Some(text()?.to_owned());
                builder
            }
            "services" => builder.services([text()?]),
            "skip_services" => builder.skip_services([text()?]),
            "boxed" => builder.boxed(text()?),
            "btree_map" => builder.btree_map(text()?),
            "bytes" => builder.bytes(text()?),
            "skip_debug" => builder.skip_debug(text()?),
            "disable_comments" => builder.disable_comments(text()?),
            "extern_path" => attribute(Builder::extern_path, builder)?,
            "type_attribute" => attribute(Builder::type_attribute, builder)?,
            "message_attribute" => attribute(Builder::message_attribute, builder)?,
            "enum_attribute" => attribute(Builder::enum_attribute, builder)?,
            "field_attribute" => attribute(Builder::field_attribute, builder)?,
            "client_attribute" => attribute(Builder::client_attribute, builder)?,
            "client_mod_attribute" => attribute(Builder::client_mod_attribute, builder)?,
            "server_attribute" => attribute(Builder::server_attribute, builder)?,
            "server_mod_attribute" => attribute(Builder::server_mod_attribute, builder)?,
            "trait_attribute" => attribute(Builder::trait_attribute, builder)?,
            _ => {
                return Err(Error::setting(format!(
                    "there is no parameter `{key}`; `protoc-gen-gorums-rust --help` lists them"
                )));
            }
        };
        Ok(self)
    }
}

fn wrong(key: &str, wanted: &str) -> Error {
    Error::setting(format!("the parameter `{key}` wants {wanted}"))
}

/// The parts between commas that have no backslash before them.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, parts.last_mut()) {
            ('\\', Some(part)) if rest.peek() == Some(&',') => {
                rest.next();
                part.push(',');
            }
            (',', _) => parts.push(String::new()),
            (c, Some(part)) => part.push(c),
            (_, None) => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

// prost's own form of these messages would decode the files, and lose the options of methods and
// the features of editions.

#[derive(Clone, PartialEq, Message)]
struct CodeGeneratorRequest {
    #[prost(string, repeated, tag = "1")]
    file_to_generate: Vec<String>,
    #[prost(string, optional, tag = "2")]
    parameter: Option<String>,
    /// The files with all imports, dependencies first.
    #[prost(bytes = "vec", repeated, tag = "15")]
    proto_file: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct CodeGeneratorResponse {
    #[prost(string, optional, tag = "1")]
    error: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    supported_features: Option<u64>,
    #[prost(int32, optional, tag = "3")]
    minimum_edition: Option<i32>,
    #[prost(int32, optional, tag = "4")]
    maximum_edition: Option<i32>,
    #[prost(message, repeated, tag = "15")]
    file: Vec<GeneratedFile>,
}

#[derive(Clone, PartialEq, Message)]
struct GeneratedFile {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "15")]
    content: Option<String>,
}

impl CodeGeneratorResponse {
    /// What the plugin supports, which `protoc` wants to know even of one that failed.
    fn supporting() -> Self {
        const PROTO3_OPTIONAL: u64 = 1;
        const EDITIONS_AT_ALL: u64 = 2;
        // In descriptors the older languages are editions too.
        const PROTO2: i32 = 998;
        Self {
            supported_features: Some(PROTO3_OPTIONAL | EDITIONS_AT_ALL),
            minimum_edition: Some(PROTO2),
            maximum_edition: EDITIONS.iter().map(|(_, number)| *number).max(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_split_at_commas_without_a_backslash() {
        assert_eq!(
            split(r"build_client=false,type_attribute=.=#[derive(A\, B)],,services=X"),
            [
                "build_client=false",
                "type_attribute=.=#[derive(A, B)]",
                "services=X"
            ]
        );
        assert!(split("").is_empty());
    }

    #[test]
    fn every_parameter_of_the_help_is_one() {
        let named = HELP
            .lines()
            .filter_map(|line| line.strip_prefix("    ")?.split_once('='))
            .filter(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        let mut keys: Vec<_> = named.map(|(key, _)| key.to_owned()).collect();
        for kind in [
            "message",
            "enum",
            "field",
            "client",
            "client_mod",
            "server",
            "server_mod",
            "trait",
        ] {
            assert!(HELP.contains(&format!("{kind}_")), "{kind}");
            keys.push(format!("{kind}_attribute"));
        }
        assert_eq!(keys.len(), 22);
        for key in keys {
            let taken = ["true", "PATH=VALUE"]
                .into_iter()
                .any(|value| Parameters::parse(&format!("{key}={value}")).is_ok());
            assert!(taken, "{key}");
        }
    }

    #[test]
    fn a_wrong_parameter_is_told() {
        for (parameter, expected) in [
            (
                "build_clients",
                "there is no parameter `build_clients`; `protoc-gen-gorums-rust --help` lists them",
            ),
            (
                "build_client=no",
                "the parameter `build_client` wants `true` or `false`, not `no`",
            ),
            (
                "services",
                "the parameter `services` wants a value, as in `services=VALUE`",
            ),
            (
                "extern_path=.a",
                "the parameter `extern_path` wants two values, as in `extern_path=PATH=VALUE`",
            ),
        ] {
            let error = Parameters::parse(parameter)
                .err()
                .map(|error| error.to_string());
            assert_eq!(error.as_deref(), Some(expected));
        }
    }
}
