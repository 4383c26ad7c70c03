//! What a build script configures.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::{Path, PathBuf};

use prost_types::ServiceDescriptorProto;

use crate::codegen::{Attributes, Generator, Settings, parse_attribute};
use crate::comments::Comments;
use crate::descriptor::{DescriptorSet, File, Targets, path};
use crate::error::{Diagnostic, Error};
use crate::model::{Choice, Services, full_name};
use crate::output::{IncludeFrom, Output, write_if_changed};
use crate::patterns::Pattern;
use crate::recursion::recursive_groups;
use crate::rust_names::RustNames;
use crate::{aliases, front_end, reflection};

/// Starts to configure the code generator.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// gorums_build::configure()
///     .build_server(false)
///     .message_attribute(".", "#[derive(serde::Serialize)]")
///     .compile_protos(&["proto/storage.proto"], &["proto"])?;
/// # Ok(())
/// # }
/// ```
pub fn configure() -> Builder {
    Builder {
        build_client: true,
        build_server: true,
        default_stubs: false,
        compile_well_known_types: false,
        emit_rerun_if_changed: env::var_os("CARGO").is_some(),
        services: Vec::new(),
        skipped_services: Vec::new(),
        fds_targets: Vec::new(),
        out_dir: None,
        include_file: None,
        file_descriptor_set_path: None,
        file_descriptor_sets: true,
        extern_paths: Vec::new(),
        type_attributes: Vec::new(),
        field_attributes: Vec::new(),
        message_attributes: Vec::new(),
        enum_attributes: Vec::new(),
        client_attributes: Vec::new(),
        client_mod_attributes: Vec::new(),
        server_attributes: Vec::new(),
        server_mod_attributes: Vec::new(),
        trait_attributes: Vec::new(),
        boxed: Vec::new(),
        btree_map: Vec::new(),
        bytes: Vec::new(),
        skip_debug: Vec::new(),
        disable_comments: Vec::new(),
    }
}

/// Compiles one `.proto` file with the default settings. Imports are looked up in its folder.
///
/// # Errors
///
/// As for [`Builder::compile_protos`].
pub fn compile_protos(proto: impl AsRef<Path>) -> Result<(), Error> {
    let proto = proto.as_ref();
    let include = proto.parent().unwrap_or(Path::new(""));
    configure().compile_protos(&[proto], &[include])
}

/// Settings of the code generator, made by [`configure`].
///
/// Where a setting takes a *path*, it chooses proto items: with a leading dot by the start of their
/// full name (`.proto.Storage`; `.` alone is everything), without one by its end (`Storage`,
/// `proto.Storage`). Settings with a path can be given several times.
#[derive(Debug, Clone)]
#[must_use = "nothing is generated until the files are compiled"]
pub struct Builder {
    build_client: bool,
    build_server: bool,
    default_stubs: bool,
    compile_well_known_types: bool,
    emit_rerun_if_changed: bool,
    services: Vec<String>,
    skipped_services: Vec<String>,
    fds_targets: Vec<String>,
    out_dir: Option<PathBuf>,
    include_file: Option<PathBuf>,
    file_descriptor_set_path: Option<PathBuf>,
    file_descriptor_sets: bool,
    extern_paths: Vec<(String, String)>,
    type_attributes: Vec<(String, String)>,
    field_attributes: Vec<(String, String)>,
    message_attributes: Vec<(String, String)>,
    enum_attributes: Vec<(String, String)>,
    client_attributes: Vec<(String, String)>,
    client_mod_attributes: Vec<(String, String)>,
    server_attributes: Vec<(String, String)>,
    server_mod_attributes: Vec<(String, String)>,
    trait_attributes: Vec<(String, String)>,
    boxed: Vec<String>,
    btree_map: Vec<String>,
    bytes: Vec<String>,
    skip_debug: Vec<String>,
    disable_comments: Vec<String>,
}

/// What came of some descriptors.
pub(crate) struct Generated {
    pub(crate) output: Output,
    pub(crate) warnings: Vec<Diagnostic>,
}

impl Builder {
    /// Compiles `.proto` files, and writes one Rust file for each package into the output folder.
    ///
    /// Both the files and their imports are looked up in the include folders, in order; the current
    /// folder is used if there are none. `gorums.proto` and the well-known types of protobuf need
    /// no folder. A `gorums.proto` in an include folder comes before the built-in one, except for
    /// the Go library's, which is written in a protobuf edition.
    ///
    /// Imported files give their messages; their services are generated only if the file is among
    /// `protos`.
    ///
    /// # Errors
    ///
    /// All mistakes in the files, see [`Error::diagnostics`]; a setting that makes no sense; a
    /// failure to read or write. Nothing is written unless all code could be generated.
    pub fn compile_protos(
        self,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<(), Error> {
        self.compile_protos_with_config(prost_build::Config::new(), protos, includes)
    }

    /// Like [`compile_protos`](Self::compile_protos), with settings of prost that have no method
    /// here.
    ///
    /// Settings of the builder are added to those of `config`. What concerns files and formatting
    /// (`out_dir`, `include_file`, `format` and the like) is only taken from the builder. Types
    /// given to [`prost_build::Config::extern_path`] have to be absolute Rust paths that begin with
    /// `::` or `crate::`.
    ///
    /// # Errors
    ///
    /// As for [`compile_protos`](Self::compile_protos).
    pub fn compile_protos_with_config(
        self,
        config: prost_build::Config,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<(), Error> {
        let protos = to_paths(protos);
        let mut includes = to_paths(includes);
        if includes.is_empty() {
            includes.push(PathBuf::from("."));
        }
        let compiled = front_end::compile(&protos, &includes);
        if self.emit_rerun_if_changed {
            print_rerun_if_changed(&compiled.descriptors);
        }
        let generated = self.generate(config, &compiled.descriptors, compiled.mistakes)?;
        self.write(&generated, &compiled.descriptors)
    }

    /// Generates code from descriptors that `protoc` or another compiler made.
    ///
    /// It takes an *encoded* `google.protobuf.FileDescriptorSet`, and not
    /// `prost_types::FileDescriptorSet`, because the latter has lost the options that say how a
    /// method is called. It has to contain all imports, and should have source positions, as from
    /// `protoc --include_imports --include_source_info --descriptor_set_out=FILE`. The services of
    /// those files are generated that no other file in it imports, or that
    /// [`fds_targets`](Self::fds_targets) names.
    ///
    /// # Errors
    ///
    /// As for [`compile_protos`](Self::compile_protos), and if the bytes are no descriptor set.
    pub fn compile_fds(self, encoded: impl Into<Vec<u8>>) -> Result<(), Error> {
        self.compile_fds_with_config(prost_build::Config::new(), encoded)
    }

    /// Like [`compile_fds`](Self::compile_fds), with settings of prost that have no method here.
    ///
    /// # Errors
    ///
    /// As for [`compile_fds`](Self::compile_fds).
    pub fn compile_fds_with_config(
        self,
        config: prost_build::Config,
        encoded: impl Into<Vec<u8>>,
    ) -> Result<(), Error> {
        let descriptors = DescriptorSet {
            encoded: encoded.into(),
            targets: if self.fds_targets.is_empty() {
                Targets::NotImported
            } else {
                Targets::Named(BTreeSet::from_iter(self.fds_targets.iter().cloned()))
            },
            paths: BTreeMap::new(),
        };
        let generated = self.generate(config, &descriptors, Vec::new())?;
        self.write(&generated, &descriptors)
    }

    /// Whether to generate clients. They are by default.
    pub fn build_client(mut self, enable: bool) -> Self {
        self.build_client = enable;
        self
    }

    /// Whether to generate servers. They are by default.
    pub fn build_server(mut self, enable: bool) -> Self {
        self.build_server = enable;
        self
    }

    /// Whether handlers have a body by default: it answers that the method is unimplemented, or
    /// ignores a request that has no reply. They have none by default, so that the compiler tells
    /// which handler is missing.
    pub fn generate_default_stubs(mut self, enable: bool) -> Self {
        self.default_stubs = enable;
        self
    }

    /// Generates only the services that one of the paths chooses. The messages of the files are
    /// generated in any case.
    ///
    /// Without this setting these are all services of the compiled files, except one that has a
    /// `stream` and no option of Gorums on any method: it is one of gRPC, which another generator
    /// takes from the same file, and is left to it with a warning. A path that chooses no service
    /// is an error.
    pub fn services(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.services.extend(to_strings(paths));
        self
    }

    /// Does not generate the services that one of the paths chooses, also where
    /// [`services`](Self::services) does.
    pub fn skip_services(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.skipped_services.extend(to_strings(paths));
        self
    }

    /// For [`compile_fds`](Self::compile_fds): the files whose services are generated, by their
    /// names in the descriptor set.
    ///
    /// Without it these are the files that no other file in the set imports. A name that is not in
    /// the set is an error.
    pub fn fds_targets(mut self, files: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.fds_targets.extend(to_strings(files));
        self
    }

    /// The folder for the generated files, instead of the one that cargo gives to the build script
    /// (`OUT_DIR`).
    pub fn out_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.out_dir = Some(path.as_ref().to_owned());
        self
    }

    /// Also writes a file with this name that includes all generated files, each in the modules of
    /// its package.
    pub fn include_file(mut self, path: impl AsRef<Path>) -> Self {
        self.include_file = Some(path.as_ref().to_owned());
        self
    }

    /// Also writes the encoded descriptors of all compiled files, for reflection or another
    /// generator.
    pub fn file_descriptor_set_path(mut self, path: impl AsRef<Path>) -> Self {
        self.file_descriptor_set_path = Some(path.as_ref().to_owned());
        self
    }

    /// Whether each package that has servers also has a constant `FILE_DESCRIPTOR_SET: &[u8]`: the
    /// encoded descriptors of its files and of all that they import, for reflection
    /// (`ServerBuilder::reflection`). It has them by default, in a file beside that of its code which is
    /// named like it and ends in `.binpb`. Comments and positions are left out. The plugin for `protoc`
    /// writes no such files.
    pub fn file_descriptor_sets(mut self, enable: bool) -> Self {
        self.file_descriptor_sets = enable;
        self
    }

    /// Uses an existing Rust type or module for a proto message, enum or package, and does not
    /// generate it.
    ///
    /// The proto path begins with a dot; the Rust path begins with `::`, `crate::` or the name of a
    /// crate.
    pub fn extern_path(mut self, proto_path: impl AsRef<str>, rust_path: impl AsRef<str>) -> Self {
        self.extern_paths.push(pair(proto_path, rust_path));
        self
    }

    /// Whether to generate the well-known types of protobuf too, in a package `google.protobuf`. By
    /// default they are those of the crate `prost-types`, and `google.protobuf.Empty` is `()`.
    pub fn compile_well_known_types(mut self, enable: bool) -> Self {
        self.compile_well_known_types = enable;
        self
    }

    /// Adds an attribute to messages, enums and oneofs.
    pub fn type_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.type_attributes.push(pair(path, attribute));
        self
    }

    /// Adds an attribute to fields of messages.
    pub fn field_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.field_attributes.push(pair(path, attribute));
        self
    }

    /// Adds an attribute to messages.
    pub fn message_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.message_attributes.push(pair(path, attribute));
        self
    }

    /// Adds an attribute to enums and oneofs.
    pub fn enum_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.enum_attributes.push(pair(path, attribute));
        self
    }

    /// Adds an attribute to client types. The path chooses services.
    pub fn client_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.client_attributes.push(pair(path, attribute));
        self
    }

    /// Adds an attribute to the modules of clients. The path chooses services or whole packages.
    pub fn client_mod_attribute(
        mut self,
        path: impl AsRef<str>,
        attribute: impl AsRef<str>,
    ) -> Self {
        self.client_mod_attributes.push(pair(path, attribute));
        self
    }

    /// Adds an attribute to server types. The path chooses services.
    pub fn server_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.server_attributes.push(pair(path, attribute));
        self
    }

    /// Adds an attribute to the modules of servers. The path chooses services or whole packages.
    pub fn server_mod_attribute(
        mut self,
        path: impl AsRef<str>,
        attribute: impl AsRef<str>,
    ) -> Self {
        self.server_mod_attributes.push(pair(path, attribute));
        self
    }

    /// Adds an attribute to the traits that handlers implement. The path chooses services.
    pub fn trait_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.trait_attributes.push(pair(path, attribute));
        self
    }

    /// Puts fields into a `Box`.
    pub fn boxed(mut self, path: impl AsRef<str>) -> Self {
        self.boxed.push(path.as_ref().to_owned());
        self
    }

    /// Uses a `BTreeMap` for map fields, in the place of a `HashMap`.
    pub fn btree_map(mut self, path: impl AsRef<str>) -> Self {
        self.btree_map.push(path.as_ref().to_owned());
        self
    }

    /// Uses `bytes::Bytes` for fields of type `bytes`, in the place of `Vec<u8>`.
    pub fn bytes(mut self, path: impl AsRef<str>) -> Self {
        self.bytes.push(path.as_ref().to_owned());
        self
    }

    /// Leaves out the `Debug` implementation of messages, enums and oneofs.
    pub fn skip_debug(mut self, path: impl AsRef<str>) -> Self {
        self.skip_debug.push(path.as_ref().to_owned());
        self
    }

    /// Does not make documentation of the comments on items: messages, fields, services, methods.
    pub fn disable_comments(mut self, path: impl AsRef<str>) -> Self {
        self.disable_comments.push(path.as_ref().to_owned());
        self
    }

    /// Whether to tell cargo which files were read, so that it runs the build script again if one
    /// of them changes. On by default under cargo.
    pub fn emit_rerun_if_changed(mut self, enable: bool) -> Self {
        self.emit_rerun_if_changed = enable;
        self
    }

    /// From descriptors to code, unless there is any mistake.
    pub(crate) fn generate(
        &self,
        mut config: prost_build::Config,
        descriptors: &DescriptorSet,
        mut mistakes: Vec<Diagnostic>,
    ) -> Result<Generated, Error> {
        let mut files = descriptors.files()?;
        let choice = Choice {
            only: self.services.clone(),
            skipped: self.skipped_services.clone(),
        };
        let extern_paths = self.extern_proto_paths();
        let mut names = RustNames::new(
            &files,
            &extern_paths,
            !self.compile_well_known_types,
            &mut mistakes,
        );
        let services = Services::check(&files, &choice, &mut names).unwrap_or_else(|more| {
            mistakes.extend(more);
            Services::default()
        });
        if self.include_file.is_some() {
            names.add_packages(&files, &mut mistakes);
        }
        if !mistakes.is_empty() {
            return Err(Error::proto(mistakes));
        }
        choice.check(&files)?;

        let mut warnings = services.left.clone();
        if descriptors.targets == Targets::NotImported {
            warnings.extend(files.iter().filter_map(imported_service));
        }
        let sets = self.descriptor_sets(&files, &services, descriptors)?;
        aliases::name_defaults_by_first(&mut files);
        for path in recursive_groups(&files) {
            config.boxed(path);
        }
        let mut comments = Comments::default();
        let protos = files
            .into_iter()
            .map(|mut file| {
                let package = file.proto.package().to_owned();
                let is_generated = |service: &ServiceDescriptorProto| {
                    file.is_target && services.get(&full_name(&package, service.name())).is_some()
                };
                // prost looks for comments by indexes, so the services stay where they are. Those that
                // are not chosen are passed over.
                if !file.proto.service.iter().any(is_generated) {
                    file.proto.service.clear();
                }
                comments.take_from(&mut file.proto);
                file.proto
            })
            .collect();
        self.configure_prost(&mut config)?;
        let packages = sets.keys().cloned().collect();
        let generator = Generator::new(services, packages, self.settings()?);
        config.service_generator(Box::new(generator));
        let output = Output::generate(&mut config, protos, sets, &comments)?;
        Ok(Generated { output, warnings })
    }

    /// The descriptors of the packages that have servers, where these are to have them.
    fn descriptor_sets(
        &self,
        files: &[File],
        services: &Services,
        descriptors: &DescriptorSet,
    ) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        if !self.file_descriptor_sets || !self.build_server {
            return Ok(BTreeMap::new());
        }
        let has_servers = |file: &&File| {
            let mut own = file.proto.service.iter();
            let package = file.proto.package();
            file.is_target
                && own.any(|service| services.get(&full_name(package, service.name())).is_some())
        };
        let with_servers = files.iter().filter(has_servers);
        let packages = with_servers.map(|file| file.proto.package().to_owned());
        reflection::sets_of(packages.collect(), files, descriptors)
    }

    fn write(&self, generated: &Generated, descriptors: &DescriptorSet) -> Result<(), Error> {
        for warning in &generated.warnings {
            warn(warning);
        }
        let output = &generated.output;
        let (folder, include_from) = match &self.out_dir {
            Some(folder) => (folder.clone(), IncludeFrom::SameFolder),
            None => (cargo_out_dir()?, IncludeFrom::OutDir),
        };
        let include_file = self.include_file.as_ref().map(|name| folder.join(name));
        for path in [&include_file, &self.file_descriptor_set_path]
            .into_iter()
            .flatten()
        {
            if let Some(what) = output.owner_of(&folder, path) {
                return Err(Error::setting(format!(
                    "{} is already the file with {what}: choose another name for the include file or the descriptors",
                    path.display()
                )));
            }
        }
        output.write(&folder)?;
        if let Some(path) = &include_file {
            write_if_changed(path, output.include_file(include_from))?;
        }
        if let Some(path) = &self.file_descriptor_set_path {
            write_if_changed(path, &descriptors.encoded)?;
        }
        Ok(())
    }

    /// Proto paths, with a leading dot, whose Rust types are not generated here.
    fn extern_proto_paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = self
            .extern_paths
            .iter()
            .map(|(proto_path, _)| proto_path.clone())
            .collect();
        if !self.compile_well_known_types {
            paths.push(".google.protobuf".to_owned());
        }
        paths
    }

    fn settings(&self) -> Result<Settings, Error> {
        for (proto_path, rust_path) in &self.extern_paths {
            check_extern_path(proto_path, rust_path)?;
        }
        Ok(Settings {
            build_client: self.build_client,
            build_server: self.build_server,
            default_stubs: self.default_stubs,
            disable_comments: self.disable_comments.iter().map(Pattern::new).collect(),
            client_attributes: Attributes::parse(&self.client_attributes)?,
            client_mod_attributes: Attributes::parse(&self.client_mod_attributes)?,
            server_attributes: Attributes::parse(&self.server_attributes)?,
            server_mod_attributes: Attributes::parse(&self.server_mod_attributes)?,
            trait_attributes: Attributes::parse(&self.trait_attributes)?,
            extern_paths: self.extern_proto_paths(),
        })
    }

    fn configure_prost(&self, config: &mut prost_build::Config) -> Result<(), Error> {
        let attributes = [
            &self.type_attributes,
            &self.field_attributes,
            &self.message_attributes,
            &self.enum_attributes,
        ];
        for (_, attribute) in attributes.into_iter().flatten() {
            parse_attribute(attribute)?;
        }
        for (path, attribute) in &self.type_attributes {
            config.type_attribute(path, attribute);
        }
        for (path, attribute) in &self.field_attributes {
            config.field_attribute(path, attribute);
        }
        for (path, attribute) in &self.message_attributes {
            config.message_attribute(path, attribute);
        }
        for (path, attribute) in &self.enum_attributes {
            config.enum_attribute(path, attribute);
        }
        for (proto_path, rust_path) in &self.extern_paths {
            config.extern_path(proto_path, rust_path);
        }
        for path in &self.boxed {
            config.boxed(path);
        }
        // These replace what is there, so an empty list would take away what `config` came with.
        if !self.btree_map.is_empty() {
            config.btree_map(&self.btree_map);
        }
        if !self.bytes.is_empty() {
            config.bytes(&self.bytes);
        }
        if !self.skip_debug.is_empty() {
            config.skip_debug(&self.skip_debug);
        }
        if !self.disable_comments.is_empty() {
            config.disable_comments(&self.disable_comments);
        }
        if self.compile_well_known_types {
            config.compile_well_known_types();
        }
        Ok(())
    }
}

/// Looks at a path to an existing Rust type or module before it becomes part of much code.
fn check_extern_path(proto_path: &str, rust_path: &str) -> Result<(), Error> {
    let wrong = |what: &str| {
        Error::setting(format!(
            "the extern path `{rust_path}` for `{proto_path}` {what}; it begins with `::`, `crate::` or the name of a crate"
        ))
    };
    let path = match syn::parse_str::<syn::Type>(rust_path) {
        Ok(syn::Type::Path(path)) if path.qself.is_none() => path.path,
        // As prost has it for `google.protobuf.Empty`.
        Ok(syn::Type::Tuple(tuple)) if tuple.elems.is_empty() => return Ok(()),
        _ => return Err(wrong("is no path to a Rust type or module")),
    };
    let first = path.segments.first().map(|first| first.ident.to_string());
    if matches!(first.as_deref(), Some("super" | "self" | "Self")) {
        return Err(wrong(
            "means another type in each module of the generated code",
        ));
    }
    Ok(())
}

fn cargo_out_dir() -> Result<PathBuf, Error> {
    env::var_os("OUT_DIR").map(PathBuf::from).ok_or_else(|| {
        Error::setting(
            "there is no OUT_DIR: generate from a build script, or choose a folder with `out_dir`"
                .to_owned(),
        )
    })
}

/// A service that a set may have been made for, but whose file another one imports.
fn imported_service(file: &File) -> Option<Diagnostic> {
    let with_options = |index: &usize| !file.is_target && file.has_options(*index);
    let index = (0..file.proto.service.len()).find(with_options)?;
    let position = file.position(&[path::SERVICE, path::index(index)]);
    let service = full_name(file.proto.package(), file.proto.service[index].name());
    let message =
        "it is not generated, because another file of the descriptor set imports its file";
    let warning = Diagnostic::new(Some(position), message).in_service(service);
    Some(warning.with_help("name the files whose services are wanted with `fds_targets`"))
}

/// Tells what is not wrong, but perhaps not meant either. cargo shows it where it runs the program
/// as a build script of a package of the workspace.
fn warn(warning: &Diagnostic) {
    if env::var_os("CARGO").is_some() {
        let text = warning.to_string().replace("\n    ", "; ");
        println!("cargo:warning={text}");
    } else {
        eprintln!("warning: {warning}");
    }
}

fn to_strings(texts: impl IntoIterator<Item = impl AsRef<str>>) -> impl Iterator<Item = String> {
    texts.into_iter().map(|text| text.as_ref().to_owned())
}

fn to_paths(paths: &[impl AsRef<Path>]) -> Vec<PathBuf> {
    paths.iter().map(|path| path.as_ref().to_owned()).collect()
}

fn pair(path: impl AsRef<str>, value: impl AsRef<str>) -> (String, String) {
    (path.as_ref().to_owned(), value.as_ref().to_owned())
}

/// Names every file that was read, and no other: cargo runs a build script every time if a file
/// that it names does not exist.
fn print_rerun_if_changed(descriptors: &DescriptorSet) {
    for path in descriptors.paths.values() {
        println!("cargo:rerun-if-changed={}", path.display());
    }
}
