//! From `.proto` files to descriptors, without an installed `protoc`.
//!
//! protox parses the files, and its library for reflection checks the descriptors. What lies
//! between is done here: finding and reading files, and what these two do not do as `protoc` does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use prost_types::{DescriptorProto, FileDescriptorProto};
use protox::file::{File, FileResolver, GoogleFileResolver, IncludeFileResolver};
use protox::prost_reflect::{DescriptorError, DescriptorPool};

use crate::descriptor::{DescriptorSet, EncodedFiles, Targets, path, position};
use crate::editions::{self, Stated};
use crate::error::{Diagnostic, Position};
use crate::scopes::{self, Declarations};
use crate::source::Source;

/// The options of Gorums, as `import "gorums.proto"` finds them.
const GORUMS_PROTO: &str = include_str!("../proto/gorums.proto");

const GORUMS_PROTO_NAME: &str = "gorums.proto";

const DESCRIPTOR_PROTO_NAME: &str = "google/protobuf/descriptor.proto";

/// What newer versions of `descriptor.proto` have, so that options of theirs are known.
const DESCRIPTOR_ADDITIONS: &str = include_str!("descriptor_additions.proto");

/// What came of compiling some files.
pub(crate) struct Compiled {
    /// Descriptors of all files that could be compiled, with their imports.
    pub(crate) descriptors: DescriptorSet,
    /// What keeps the others from being compiled.
    pub(crate) mistakes: Vec<Diagnostic>,
}

/// Compiles `.proto` files and what they import.
///
/// A file that cannot be compiled does not stop the others, so that one run finds the mistakes of
/// all.
pub(crate) fn compile(protos: &[PathBuf], includes: &[PathBuf]) -> Compiled {
    let mut front_end = FrontEnd::new(includes);
    let targets = protos
        .iter()
        .filter_map(|proto| front_end.compile_target(proto))
        .collect();
    let encoded = front_end.encode();
    Compiled {
        descriptors: DescriptorSet {
            encoded,
            targets: Targets::Named(targets),
            paths: front_end.paths,
        },
        mistakes: front_end.mistakes,
    }
}

/// A file by its name in imports.
enum State {
    /// Its imports are being compiled.
    Opened,
    Compiled(Rc<Declarations>),
    /// What is wrong with it was noted.
    Refused,
}

struct FrontEnd<'a> {
    includes: &'a [PathBuf],
    states: BTreeMap<String, State>,
    /// The names of the files that are being compiled, each imported by the one before it.
    open: Vec<String>,
    /// What was compiled, dependencies first.
    compiled: Vec<Checked>,
    /// All of that, to check what comes next against.
    pool: DescriptorPool,
    /// Files read from disk, by their names in imports.
    paths: BTreeMap<String, PathBuf>,
    mistakes: Vec<Diagnostic>,
}

/// A file in the form in which the pool takes it.
struct Checked {
    file: FileDescriptorProto,
    /// How many of its imports are those of the source.
    imports: usize,
}

/// Why a file cannot be imported.
enum NoFile {
    NotFound,
    /// The files on the way from it to itself.
    Cycle(String),
    /// What is wrong with it was noted.
    Refused,
}

/// A file as it was found.
enum Found {
    OnDisk(PathBuf),
    BuiltIn(Box<FileDescriptorProto>),
}

impl<'a> FrontEnd<'a> {
    fn new(includes: &'a [PathBuf]) -> Self {
        Self {
            includes,
            states: BTreeMap::new(),
            open: Vec::new(),
            compiled: Vec::new(),
            pool: new_pool(),
            paths: BTreeMap::new(),
            mistakes: Vec::new(),
        }
    }

    /// Compiles one of the files that are asked for, and returns its name in imports.
    fn compile_target(&mut self, proto: &Path) -> Option<String> {
        let resolved = self
            .includes
            .iter()
            .find_map(|include| IncludeFileResolver::new(include.clone()).resolve_path(proto));
        let is_path = resolved.is_some();
        let Some(name) = resolved.or_else(|| name_of(proto)) else {
            self.mistakes.push(not_included(proto));
            return None;
        };
        if is_path
            && let Some(Found::OnDisk(found)) = self.find(&name)
            && is_other_file(&found, proto)
        {
            let mistake = format!(
                "file '{}' is hidden by '{}', which is in an include folder before",
                proto.display(),
                found.display()
            );
            self.mistakes.push(
                Diagnostic::new(None, mistake).with_help(
                    "compile the other one, or give the include folders in another order",
                ),
            );
            return None;
        }
        match self.compile(&name) {
            Ok(_) => Some(name),
            Err(NoFile::NotFound) => {
                self.mistakes.push(not_included(proto));
                None
            }
            Err(NoFile::Cycle(_) | NoFile::Refused) => None,
        }
    }

    fn compile(&mut self, name: &str) -> Result<Rc<Declarations>, NoFile> {
        match self.states.get(name) {
            Some(State::Compiled(declarations)) => return Ok(Rc::clone(declarations)),
            Some(State::Refused) => return Err(NoFile::Refused),
            Some(State::Opened) => {
                let from = self.open.iter().position(|open| open == name);
                let mut way = self.open[from.unwrap_or_default()..].join(" -> ");
                way.push_str(" -> ");
                way.push_str(name);
                return Err(NoFile::Cycle(way));
            }
            None => {}
        }
        let found = self.find(name).ok_or(NoFile::NotFound)?;
        self.states.insert(name.to_owned(), State::Opened);
        self.open.push(name.to_owned());
        let compiled = self.compile_found(name, found);
        self.open.pop();
        let (state, result) = match compiled {
            Ok(declarations) => {
                let declarations = Rc::new(declarations);
                (State::Compiled(Rc::clone(&declarations)), Ok(declarations))
            }
            Err(mistakes) => {
                self.mistakes.extend(mistakes);
                (State::Refused, Err(NoFile::Refused))
            }
        };
        self.states.insert(name.to_owned(), state);
        result
    }

    fn compile_found(&mut self, name: &str, found: Found) -> Result<Declarations, Vec<Diagnostic>> {
        let (mut file, is_of_edition) = match found {
            Found::OnDisk(path) => self.read(name, path).map_err(|mistake| vec![*mistake])?,
            Found::BuiltIn(file) => (*file, false),
        };
        let shown_as = self.shown_as(name);
        let told = |unable: Vec<editions::Unable>, file: &FileDescriptorProto| -> Vec<Diagnostic> {
            unable
                .iter()
                .map(|unable| unable.at(position(file, &shown_as, &unable.path)))
                .collect()
        };
        let stated = match is_of_edition {
            true => Some(Stated::take_from(&mut file).map_err(|unable| told(unable, &file))?),
            false => None,
        };
        let imports = self.compile_imports(&file)?;
        let declarations = Declarations::of(&file, &imports);
        scopes::resolve(&mut file, &declarations, &imports);
        if let Some(stated) = stated {
            let lowered = stated.lower(&mut file);
            lowered.map_err(|unable| told(unable, &file))?;
        }
        let checked = Checked::new(file, &imports);
        let added = match name {
            // The pool was made with it.
            DESCRIPTOR_PROTO_NAME => Ok(()),
            _ => self.pool.add_file_descriptor_proto(checked.file.clone()),
        };
        if let Err(error) = added {
            // A pool that has refused a file has lost some of what others extend.
            self.pool = new_pool();
            for checked in &self.compiled {
                if checked.file.name() != DESCRIPTOR_PROTO_NAME {
                    self.pool
                        .add_file_descriptor_proto(checked.file.clone())
                        .expect("it was added to such a pool before, after the same files");
                }
            }
            return Err(vec![self.check_mistake(&error)]);
        }
        self.compiled.push(checked);
        Ok(declarations)
    }

    /// What all imports of a file declare, or every mistake with them.
    fn compile_imports(
        &mut self,
        file: &FileDescriptorProto,
    ) -> Result<Vec<Rc<Declarations>>, Vec<Diagnostic>> {
        let shown_as = self.shown_as(file.name());
        let mut mistakes = Vec::new();
        let mut imports = Vec::new();
        let mut complete = true;
        for (index, import) in file.dependency.iter().enumerate() {
            let mut refuse = |message: String, help: &str| {
                let path = [path::DEPENDENCY, path::index(index)];
                let position = position(file, &shown_as, &path);
                mistakes.push(Diagnostic::new(Some(position), message).with_help(help));
            };
            if file.dependency[..index].contains(import) {
                refuse(
                    format!("import '{import}' was listed twice"),
                    "remove one of the two",
                );
                continue;
            }
            match self.compile(import) {
                Ok(declarations) => imports.push(declarations),
                Err(NoFile::NotFound) => refuse(
                    format!("import '{import}' not found"),
                    "one of the include folders has to contain the file; is its path right?",
                ),
                Err(NoFile::Cycle(way)) => refuse(
                    format!("import cycle detected: {way}"),
                    "move what both files need into a third one",
                ),
                Err(NoFile::Refused) => complete = false,
            }
        }
        if mistakes.is_empty() && complete {
            Ok(imports)
        } else {
            Err(mistakes)
        }
    }

    /// Finds a file: the well-known types of protobuf among those that are built in, since protox
    /// does not know what newer versions of them have; others in the include folders.
    fn find(&self, name: &str) -> Option<Found> {
        if let Ok(file) = GoogleFileResolver::new().open_file(name) {
            return Some(Found::BuiltIn(Box::new(match name {
                DESCRIPTOR_PROTO_NAME => descriptor_proto(),
                _ => file.into(),
            })));
        }
        let mut candidates = self.includes.iter().map(|include| include.join(name));
        if let Some(path) = candidates.find(|path| path.is_file()) {
            return Some(Found::OnDisk(path));
        }
        (name == GORUMS_PROTO_NAME).then(|| {
            let file = File::from_source(name, GORUMS_PROTO);
            Found::BuiltIn(Box::new(
                file.expect("the file of this crate is tested").into(),
            ))
        })
    }

    /// Reads and parses a file, and says whether it is one of an edition.
    fn read(
        &mut self,
        name: &str,
        path: PathBuf,
    ) -> Result<(FileDescriptorProto, bool), Box<Diagnostic>> {
        let shown_as = path.display().to_string();
        let at = |start| Position {
            file: shown_as.clone(),
            start,
        };
        let bytes = fs::read(&path);
        self.paths.insert(name.to_owned(), path);
        let bytes = bytes.map_err(|error| {
            Box::new(Diagnostic::new(
                Some(at(None)),
                format!("the file cannot be read: {error}"),
            ))
        })?;
        let source = Source::new(&bytes).map_err(|refused| {
            let mistake = Diagnostic::new(Some(at(Some(refused.start))), refused.message);
            Box::new(mistake.with_help(refused.help))
        })?;
        if let Some(edition) = &source.edition
            && !editions::EDITIONS
                .iter()
                .any(|(name, _)| *name == edition.name)
        {
            let what = format!("`edition = \"{}\"`", edition.name);
            return Err(Box::new(editions::refused(at(Some(edition.start)), &what)));
        }
        match File::from_source(name, &source.text) {
            Ok(file) => {
                let mut file = FileDescriptorProto::from(file);
                source.restore_columns(&mut file);
                Ok((file, source.edition.is_some()))
            }
            Err(error) => {
                let start = match reported_start(name, &error) {
                    Some((line, column)) => (line, column_on_disk(&source, line, column)),
                    // Something is missing at the end.
                    None => source.end(),
                };
                let mut message = error.to_string();
                if source.edition.is_some() {
                    message = message.replace("proto3 syntax", "editions");
                }
                let help = help_for(&message);
                let mistake = Diagnostic::new(Some(at(Some(start))), message);
                Err(Box::new(match help {
                    Some(help) => mistake.with_help(help),
                    None => mistake,
                }))
            }
        }
    }

    /// What messages call a file.
    fn shown_as(&self, name: &str) -> String {
        match self.paths.get(name) {
            Some(path) => path.display().to_string(),
            None => name.to_owned(),
        }
    }

    /// Turns what is wrong with the descriptors of a file into one of our mistakes.
    fn check_mistake(&self, error: &DescriptorError) -> Diagnostic {
        let position = error.file().map(|name| {
            let count = |number: usize| u32::try_from(number + 1).unwrap_or(u32::MAX);
            Position {
                file: self.shown_as(name),
                start: error.line().map(count).zip(error.column().map(count)),
            }
        });
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            message = format!("{message}: {source}");
        }
        // "'a.b' resolves to 'a.b', which is not defined".
        if let Some((name, rest)) = message.split_once(" resolves to ")
            && rest.strip_prefix(name) == Some(", which is not defined")
        {
            message = format!("{name} is not defined");
        }
        let help = help_for(&message);
        let mistake = Diagnostic::new(position, message);
        match help {
            Some(help) => mistake.with_help(help),
            None => mistake,
        }
    }

    /// The descriptors of all that was compiled, with the options in them.
    fn encode(&self) -> Vec<u8> {
        let encoded = self.compiled.iter().filter_map(|checked| {
            let in_pool = self.pool.get_file_by_name(checked.file.name())?;
            Some(first_imports(&in_pool.encode_to_vec(), checked.imports))
        });
        EncodedFiles {
            file: encoded.collect(),
        }
        .encode_to_vec()
    }
}

impl Checked {
    /// Gets around what the checking library does not do as `protoc` does.
    fn new(mut file: FileDescriptorProto, imports: &[Rc<Declarations>]) -> Self {
        let count = file.dependency.len();
        // It does not follow public imports of public imports.
        for visible in scopes::visible_files(imports) {
            if !file.dependency.iter().any(|import| import == visible) {
                file.dependency.push(visible.to_owned());
            }
        }
        // It refuses JSON names that meet, which are no mistake in proto2.
        if matches!(file.syntax(), "" | "proto2") {
            file.message_type.iter_mut().for_each(part_json_names);
        }
        Self {
            file,
            imports: count,
        }
    }
}

/// Gives a field whose JSON name another one has its own name in the place of it.
fn part_json_names(message: &mut DescriptorProto) {
    let mut taken = BTreeSet::new();
    for field in &mut message.field {
        let json_name = match &field.json_name {
            Some(name) => name.clone(),
            None => json_name(field.name()),
        };
        if !taken.insert(json_name) && field.json_name.is_none() {
            // A name with `[` and `]` is never that of another.
            let own = format!("[{}]", field.name());
            taken.insert(own.clone());
            field.json_name = Some(own);
        }
    }
    message.nested_type.iter_mut().for_each(part_json_names);
}

/// The JSON name that protobuf makes of the name of a field.
fn json_name(name: &str) -> String {
    let mut json = String::new();
    for (index, part) in name.split('_').enumerate() {
        let mut rest = part.chars();
        if index > 0 {
            json.extend(rest.next().map(|first| first.to_ascii_uppercase()));
        }
        json.extend(rest);
    }
    json
}

/// An encoded file without its imports beyond the first ones.
fn first_imports(file: &[u8], count: usize) -> Vec<u8> {
    const DECODES: &str = "what was just encoded can be decoded";
    let mut rest = file;
    let mut kept = Vec::with_capacity(file.len());
    let mut imports = 0;
    while !rest.is_empty() {
        let start = rest;
        let (number, wire_type) = decode_key(&mut rest).expect(DECODES);
        skip_field(wire_type, number, &mut rest, DecodeContext::default()).expect(DECODES);
        let is_import = i32::try_from(number) == Ok(path::DEPENDENCY);
        imports += usize::from(is_import);
        if !is_import || imports <= count {
            kept.extend_from_slice(&start[..start.len() - rest.len()]);
        }
    }
    kept
}

/// A pool that knows the options of newer versions of protobuf.
fn new_pool() -> DescriptorPool {
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_proto(descriptor_proto())
        .expect("the file of this crate is tested");
    pool
}

/// protox's `descriptor.proto`, with what newer versions have beside it.
fn descriptor_proto() -> FileDescriptorProto {
    let built_in = |result: Result<File, protox::Error>| {
        FileDescriptorProto::from(result.expect("the file is built in"))
    };
    let mut file = built_in(GoogleFileResolver::new().open_file(DESCRIPTOR_PROTO_NAME));
    let additions = File::from_source(DESCRIPTOR_PROTO_NAME, DESCRIPTOR_ADDITIONS);
    let additions = built_in(additions);
    for more in additions.message_type {
        let present = file.message_type.iter_mut();
        for message in present.filter(|message| message.name == more.name) {
            message.field.extend(more.field.iter().cloned());
            message.nested_type.extend(more.nested_type.iter().cloned());
            if !more.extension_range.is_empty() {
                message.extension_range.clone_from(&more.extension_range);
            }
        }
    }
    for more in additions.enum_type {
        let present = file.enum_type.iter_mut();
        for of in present.filter(|of| of.name == more.name) {
            of.value.extend(more.value.iter().cloned());
        }
    }
    file
}

/// The name that imports give a file, if it is one without `..` and the like.
fn name_of(proto: &Path) -> Option<String> {
    let parts = proto.components().map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let parts = parts.collect::<Option<Vec<_>>>()?;
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn not_included(proto: &Path) -> Diagnostic {
    let message = format!("file '{}' is not in any include path", proto.display());
    Diagnostic::new(None, message)
        .with_help("one of the include folders has to contain the file; is its path right?")
}

/// Whether two paths lead to different files, as far as that is known.
fn is_other_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one != other,
        _ => false,
    }
}

/// What mends a mistake with an option of Gorums, whose names the library cannot know.
fn help_for(message: &str) -> Option<String> {
    const IMPORT: &str = "`import \"gorums.proto\";` gives the options `rpc`, `unicast`, `multicast` and `quorumcall` of the package `gorums`";
    for name in ["rpc", "unicast", "multicast", "quorumcall"] {
        if message.contains(&format!("'{name}'")) || message.contains(&format!("'{name}.")) {
            return Some(format!("write `option (gorums.{name}) = true;`; {IMPORT}"));
        }
    }
    if message.contains("'gorums'") {
        return Some(format!(
            "options of other files stand in parentheses, as in `option (gorums.quorumcall) = true;`; {IMPORT}"
        ));
    }
    if message.starts_with("message numbers must be") {
        return Some(
            "only extensions of a message set have larger numbers, and prost has no extensions"
                .to_owned(),
        );
    }
    if let Some((name, place)) = message
        .strip_prefix("'gorums.")
        .and_then(|rest| rest.split_once("' resolves to '"))
        && let Some(other) = place
            .split_once(&format!(".{name}'"))
            .map(|(other, _)| other)
    {
        return Some(format!(
            "write `option (.gorums.{name}) = true;`: without the first dot, `gorums` is `{other}` here, which is nearer"
        ));
    }
    message.contains("'gorums.").then(|| IMPORT.to_owned())
}

fn column_on_disk(source: &Source, line: u32, column: u32) -> u32 {
    let number = |number: u32| usize::try_from(number - 1).unwrap_or(usize::MAX);
    let on_disk = source.column_on_disk(number(line), number(column));
    u32::try_from(on_disk + 1).unwrap_or(u32::MAX)
}

/// The line and column of a protox error, which gives them in its `Debug` text only:
/// `FILE:LINE:COLUMN: MESSAGE`.
fn reported_start(file: &str, error: &protox::Error) -> Option<(u32, u32)> {
    let text = format!("{error:?}");
    let position = text.strip_prefix(file)?.trim_start_matches(':');
    let mut numbers = position.splitn(3, ':');
    let line = numbers.next()?.parse().ok()?;
    let column = numbers.next()?.parse().ok()?;
    Some((line, column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_read_from_disk_are_known_by_their_paths() {
        let folder = PathBuf::from("tests/proto");
        let compiled = compile(&[PathBuf::from("nested/store.proto")], &[folder]);
        assert_eq!(compiled.mistakes, []);
        let paths: Vec<_> = compiled.descriptors.paths.values().collect();
        assert_eq!(
            paths,
            [
                Path::new("tests/proto/nested/common.proto"),
                Path::new("tests/proto/nested/store.proto")
            ]
        );
    }

    #[test]
    fn the_shipped_options_have_the_numbers_of_the_go_library() {
        let compiled = compile(&[PathBuf::from("gorums.proto")], &[]);
        assert_eq!(compiled.mistakes, []);
        let files = compiled.descriptors.files().expect("descriptors decode");
        let gorums = files.last().expect("dependencies come first");
        assert_eq!(gorums.proto.package(), "gorums");
        assert_eq!(gorums.proto.syntax(), "");
        let options: Vec<_> = gorums
            .proto
            .extension
            .iter()
            .map(|option| (option.name(), option.number(), option.extendee()))
            .collect();
        let of_methods = ".google.protobuf.MethodOptions";
        assert_eq!(
            options,
            [
                ("rpc", 50001, of_methods),
                ("unicast", 50002, of_methods),
                ("multicast", 50003, of_methods),
                ("quorumcall", 50004, of_methods),
                ("correctable", 50005, of_methods),
                ("async", 50010, of_methods),
                ("per_node_arg", 50020, of_methods),
                ("custom_return_type", 50030, of_methods),
            ]
        );
    }

    const GOLDEN: &str = "tests/golden";

    /// What `protoc` makes of the files in `tests/golden`. After a change of them, in that folder:
    ///
    /// ```console
    /// $ python3 -m venv /tmp/protoc && /tmp/protoc/bin/pip install grpcio-tools==1.83.0
    /// $ /tmp/protoc/bin/python -m grpc_tools.protoc -I . -I ../../proto --include_imports -o protoc.bin *.proto
    /// ```
    fn made_by_protoc() -> Vec<u8> {
        fs::read(Path::new(GOLDEN).join("protoc.bin")).expect("it is in the repository")
    }

    /// Compiles the same files, and returns their names beside.
    fn golden() -> (FrontEnd<'static>, Vec<String>) {
        static INCLUDES: std::sync::LazyLock<[PathBuf; 1]> =
            std::sync::LazyLock::new(|| [PathBuf::from(GOLDEN)]);
        let mut front_end = FrontEnd::new(&*INCLUDES);
        let entries = fs::read_dir(GOLDEN).expect("tests run in the folder of the crate");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("readable").file_name())
            .filter_map(|name| name.into_string().ok())
            .filter(|name| name.ends_with(".proto"))
            .collect();
        names.sort();
        for name in &names {
            front_end.compile_target(Path::new(name));
        }
        assert_eq!(front_end.mistakes, []);
        (front_end, names)
    }

    #[test]
    fn proto2_and_proto3_are_what_protoc_makes_of_them() {
        let (front_end, names) = golden();
        let files = |encoded: Vec<u8>| {
            let files = EncodedFiles::decode(encoded.as_slice()).expect("a descriptor set");
            BTreeMap::from_iter(files.file.into_iter().map(|file| {
                let file = FileDescriptorProto::decode(file.as_slice());
                let mut file = file.expect("a file");
                file.source_code_info = None;
                (file.name().to_owned(), file)
            }))
        };
        let (ours, theirs) = (files(front_end.encode()), files(made_by_protoc()));
        let mut compared = 0;
        for name in names.iter().filter(|name| !name.starts_with("edition")) {
            let (mut ours, mut theirs) = (ours[name].clone(), theirs[name].clone());
            for file in [&mut ours, &mut theirs] {
                file.message_type.iter_mut().for_each(without_empty_options);
                let services = file.service.iter_mut();
                for method in services.flat_map(|service| &mut service.method) {
                    method
                        .options
                        .take_if(|options| *options == Default::default());
                }
            }
            assert_eq!(format!("{ours:#?}"), format!("{theirs:#?}"), "{name}");
            compared += 1;
        }
        assert_eq!(compared, 4);
    }

    #[test]
    fn editions_are_lowered_to_the_same_from_text_and_from_protoc() {
        let (front_end, names) = golden();
        let files = |encoded| {
            let set = DescriptorSet {
                encoded,
                targets: Targets::Named(names.iter().cloned().collect()),
                paths: BTreeMap::new(),
            };
            let files = set.files().unwrap_or_else(|error| panic!("{error}"));
            BTreeMap::from_iter(files.into_iter().map(|mut file| {
                file.proto.source_code_info = None;
                (file.proto.name().to_owned(), file.proto)
            }))
        };
        let (ours, theirs) = (files(front_end.encode()), files(made_by_protoc()));
        for name in ["edition2023.proto", "edition2024.proto"] {
            let (mut ours, mut theirs) = (ours[name].clone(), theirs[name].clone());
            assert_eq!(theirs.syntax(), "proto3");
            // An import of features or for options is not one of messages.
            let of_messages = |import: &String| {
                !crate::source::declares_features(import) && import != "options.proto"
            };
            for file in [&mut ours, &mut theirs] {
                file.dependency.retain(of_messages);
                file.message_type.iter_mut().for_each(without_empty_options);
            }
            assert_eq!(format!("{ours:#?}"), format!("{theirs:#?}"), "{name}");
        }
    }

    /// Options of which nothing is left are none.
    fn without_empty_options(message: &mut DescriptorProto) {
        let is_left = |options: &mut prost_types::FieldOptions| *options != Default::default();
        for field in &mut message.field {
            field.options.take_if(|options| !is_left(options));
        }
        for range in &mut message.extension_range {
            range
                .options
                .take_if(|options| *options == Default::default());
        }
        message
            .options
            .take_if(|options| *options == Default::default());
        message
            .nested_type
            .iter_mut()
            .for_each(without_empty_options);
    }
}
