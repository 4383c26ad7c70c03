//! The generated files.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use prost_build::Module;
use prost_types::FileDescriptorProto;
use syn::{Attribute, Item, parse_quote};

use crate::comments::Comments;
use crate::error::Error;

/// One Rust file for each proto package, formatted.
#[derive(Debug)]
pub(crate) struct Output {
    by_package: BTreeMap<Module, String>,
    /// The encoded descriptors of the packages that have them beside their code.
    descriptors: BTreeMap<Module, Vec<u8>>,
    /// The packages whose names are not those of their files.
    spelled: BTreeMap<String, Module>,
}

/// Where an include file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IncludeFrom {
    /// Anywhere: it names the generated files by cargo's `OUT_DIR`.
    OutDir,
    /// In the folder of the generated files.
    SameFolder,
}

impl Output {
    /// Has prost write messages and services.
    pub(crate) fn generate(
        config: &mut prost_build::Config,
        files: Vec<FileDescriptorProto>,
        descriptors: BTreeMap<String, Vec<u8>>,
        comments: &Comments,
    ) -> Result<Self, Error> {
        // We format it ourselves: prost panics if an attribute has made its code no Rust.
        config.format(false);
        let spelled = files.iter().filter_map(|file| {
            let module = Module::from_protobuf_package_name(file.package());
            let file_name = format!("{}.rs", file.package());
            (!module.is_empty() && file_name != self::file_name(&module))
                .then_some((file_name, module))
        });
        let spelled: BTreeMap<String, Module> = spelled.collect();
        let requests = files
            .into_iter()
            .map(|file| (Module::from_protobuf_package_name(file.package()), file))
            .collect();
        // It panics where it cannot go on. Nothing of it is used afterwards.
        let modules = catch_unwind(AssertUnwindSafe(|| config.generate(requests)))
            .map_err(|panic| Error::panicked(panic.as_ref()))?
            .map_err(|error| Error::setting(error.to_string()))?;
        let by_package = modules
            .into_iter()
            .map(|(module, code)| {
                let code = finish(&code, comments).map_err(|error| {
                    Error::setting(format!(
                        "the code for `{}` is not Rust, so an attribute or an extern path must be wrong: {error}",
                        file_name(&module)
                    ))
                })?;
                Ok((module, code))
            })
            .collect::<Result<BTreeMap<_, _>, Error>>()?;
        let spelled = spelled
            .into_iter()
            .filter(|(_, module)| by_package.contains_key(module))
            .collect();
        let of_module =
            |(package, set): (String, _)| (Module::from_protobuf_package_name(&package), set);
        Ok(Self {
            by_package,
            descriptors: descriptors.into_iter().map(of_module).collect(),
            spelled,
        })
    }

    /// What a file in the folder of the generated files has in it, if it is one of them.
    pub(crate) fn owner_of(&self, folder: &Path, path: &Path) -> Option<String> {
        let by_name = |(name, module): (String, _)| (folder.join(name) == path).then_some(module);
        let module = self
            .by_package
            .keys()
            .map(|module| (file_name(module), module))
            .chain(
                self.spelled
                    .iter()
                    .map(|(name, module)| (name.clone(), module)),
            )
            .chain(
                self.descriptors
                    .keys()
                    .map(|module| (descriptors_file(module), module)),
            )
            .find_map(by_name)?;
        let parts: Vec<&str> = module.parts().collect();
        Some(match parts.as_slice() {
            [] => "the code of what has no package".to_owned(),
            parts => format!(
                "the code of the package `{}`",
                parts.join(".").replace("r#", "")
            ),
        })
    }

    /// Writes the files into a folder.
    ///
    /// A package that has servers has its descriptors in a file beside its code.
    ///
    /// A package like `a.async.Type` has its code in a file named like its Rust modules, and one
    /// more file, named as the package is written, that includes it.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        for (name, code) in self.files() {
            write_if_changed(&folder.join(name), code)?;
        }
        for (module, set) in &self.descriptors {
            write_if_changed(&folder.join(descriptors_file(module)), set)?;
        }
        for (spelled, module) in &self.spelled {
            let file_name = file_name(module);
            let path = folder.join(spelled);
            // To a file system that makes no difference between a and A, both are one file.
            if fs::read(&path).is_ok_and(|present| present == self.by_package[module].as_bytes()) {
                continue;
            }
            write_if_changed(&path, format!("{HEADER}include!(\"{file_name}\");\n"))?;
        }
        Ok(())
    }

    /// The names of the files of packages, and their code.
    pub(crate) fn files(&self) -> impl Iterator<Item = (String, &str)> {
        self.by_package
            .iter()
            .map(|(module, code)| (file_name(module), code.as_str()))
    }

    /// A file that includes all others, each in the modules of its package.
    pub(crate) fn include_file(&self, from: IncludeFrom) -> String {
        let mut text = HEADER.to_owned();
        // The modules around the current line.
        let mut open: Vec<&str> = Vec::new();
        for module in self.by_package.keys() {
            let parts: Vec<&str> = module.parts().collect();
            while !parts.starts_with(&open) {
                open.pop();
                line(&mut text, open.len(), "}");
            }
            for part in &parts[open.len()..] {
                let depth = open.len();
                open.push(part);
                let package = open.join(".").replace("r#", "");
                line(&mut text, depth, &format!("/// Proto package `{package}`."));
                line(&mut text, depth, &format!("pub mod {part} {{"));
            }
            let file_name = file_name(module);
            let include = match from {
                IncludeFrom::OutDir => {
                    format!("include!(concat!(env!(\"OUT_DIR\"), \"/{file_name}\"));")
                }
                IncludeFrom::SameFolder => format!("include!(\"{file_name}\");"),
            };
            line(&mut text, open.len(), &include);
        }
        for depth in (0..open.len()).rev() {
            line(&mut text, depth, "}");
        }
        text
    }
}

/// Leaves a file alone that has the right contents already, so that cargo does not compile what
/// depends on it again.
pub(crate) fn write_if_changed(path: &Path, contents: impl AsRef<[u8]>) -> Result<(), Error> {
    let contents = contents.as_ref();
    if fs::read(path).is_ok_and(|present| present == contents) {
        return Ok(());
    }
    fs::write(path, contents)
        .map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
}

const HEADER: &str = "// This file is @generated by gorums-build.\n";

/// Documents and formats the code of a package, and allows what lints would find in it.
fn finish(code: &str, comments: &Comments) -> syn::Result<String> {
    let mut file = syn::parse_file(code)?;
    comments.put_into(&mut file);
    for item in &mut file.items {
        if let Some(attributes) = attributes_of(item) {
            attributes.insert(0, allowed_lints());
        }
    }
    Ok(format!("{HEADER}{}", prettyplease::unparse(&file)))
}

/// Lints that would speak of the `.proto` files or of this generator, neither of which the user of
/// the code can mend.
fn allowed_lints() -> Attribute {
    parse_quote! {
        #[allow(
            dead_code,
            deprecated,
            missing_docs,
            unreachable_pub,
            unused_qualifications,
            clippy::all,
            clippy::pedantic,
            rustdoc::all
        )]
    }
}

/// The attributes of an item of one of the kinds that are generated.
fn attributes_of(item: &mut Item) -> Option<&mut Vec<Attribute>> {
    match item {
        Item::Struct(item) => Some(&mut item.attrs),
        Item::Enum(item) => Some(&mut item.attrs),
        Item::Impl(item) => Some(&mut item.attrs),
        Item::Mod(item) => Some(&mut item.attrs),
        Item::Const(item) if item.ident != "_" => Some(&mut item.attrs),
        _ => None,
    }
}

fn file_name(module: &Module) -> String {
    module.to_file_name_or("_")
}

/// The name of the file with the descriptors of a package.
pub(crate) fn descriptors_file(module: &Module) -> String {
    let code = file_name(module);
    format!("{}.binpb", code.strip_suffix(".rs").unwrap_or(&code))
}

fn line(text: &mut String, depth: usize, line: &str) {
    writeln!(text, "{:indent$}{line}", "", indent = 4 * depth)
        .expect("writing to a string does not fail");
}
