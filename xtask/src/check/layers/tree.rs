//! What a crate's source says: its modules, the names that each of them has, and what it mentions.
//!
//! Left out is what only tests see: items, statements and fields with a `cfg` that holds in tests
//! alone, and functions with a `#[test]`. Links in documentation import nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, Item, Meta, Token, UseTree, Visibility};

/// One file of the crate.
#[derive(Debug)]
pub(super) struct File {
    /// Relative to the crate's `src`, with slashes.
    pub(super) path: String,
    pub(super) lines: usize,
}

#[derive(Debug)]
pub(super) struct Module {
    pub(super) file: usize,
    pub(super) parent: Option<usize>,
    /// As it is written in a path: `crate::wire`.
    pub(super) name: String,
    /// A name may stand for several things: a module and a function, say.
    pub(super) names: BTreeMap<String, Vec<Binding>>,
    pub(super) globs: Vec<Vec<String>>,
    pub(super) mentions: Vec<Mention>,
}

/// What one name of a module stands for.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) meaning: Meaning,
    /// The module inside which the name can be seen; everywhere where there is none.
    pub(super) within: Option<usize>,
    /// Whether it was declared inside a function, so that no other module has it.
    pub(super) is_local: bool,
}

#[derive(Debug)]
pub(super) enum Meaning {
    Item,
    Module(usize),
    Import(Vec<String>),
}

/// A path in the source.
#[derive(Debug)]
pub(super) struct Mention {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Use,
    /// `use path::*`
    Glob,
    /// In a type, an expression, a pattern, or the tokens of a macro.
    Path,
}

#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) files: Vec<File>,
    /// The first one is the crate's root.
    pub(super) modules: Vec<Module>,
}

impl Tree {
    /// Reads the crate whose root is `lib.rs` in this folder.
    pub(super) fn read(src: &Path) -> Result<Self> {
        let mut reader = Reader {
            src,
            tree: Self::default(),
        };
        reader.file(&src.join("lib.rs"), None, "crate".to_owned())?;
        Ok(reader.tree)
    }
}

struct Reader<'a> {
    src: &'a Path,
    tree: Tree,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, parent: Option<usize>, name: String) -> Result<usize> {
        let inside = path.strip_prefix(self.src).unwrap_or(path);
        let shown = inside.to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(path).with_context(|| shown.clone())?;
        let parsed = syn::parse_file(&text)
            .map_err(|error| anyhow!("{shown}:{}: {error}", error.span().start().line))?;
        let file = self.tree.files.len();
        self.tree.files.push(File {
            path: shown,
            lines: text.lines().count(),
        });
        // `a.rs` has its modules in the folder `a`; the faces of folders have theirs beside them.
        let is_face = path
            .file_name()
            .is_some_and(|name| name == "mod.rs" || name == "lib.rs");
        let children = if is_face {
            path.with_file_name("")
        } else {
            path.with_extension("")
        };
        self.module(file, parent, name, &children, &parsed.items)
    }

    fn module(
        &mut self,
        file: usize,
        parent: Option<usize>,
        name: String,
        children: &Path,
        items: &[Item],
    ) -> Result<usize> {
        let module = self.tree.modules.len();
        self.tree.modules.push(Module {
            file,
            parent,
            name,
            names: BTreeMap::new(),
            globs: Vec::new(),
            mentions: Vec::new(),
        });
        for item in items {
            if is_for_tests(item) {
                continue;
            }
            if let Item::Mod(item) = item {
                let child = self.child(module, children, item)?;
                let within = self.within(module, &item.vis);
                let name = item.ident.to_string();
                self.bind(module, name, Meaning::Module(child), within);
                continue;
            }
            self.item(module, item)?;
        }
        Ok(module)
    }

    fn child(&mut self, parent: usize, children: &Path, item: &syn::ItemMod) -> Result<usize> {
        let name = item.ident.to_string();
        let path = format!("{}::{name}", self.tree.modules[parent].name);
        if item.attrs.iter().any(|attr| attr.path().is_ident("path")) {
            bail!("{path} has a #[path], which is not followed here: name the file after it");
        }
        let file = self.tree.modules[parent].file;
        let folder = children.join(&name);
        if let Some((_, items)) = &item.content {
            return self.module(file, Some(parent), path, &folder, items);
        }
        let files: [PathBuf; 2] = [folder.with_extension("rs"), folder.join("mod.rs")];
        match files.each_ref().map(|file| file.is_file()) {
            [true, false] => self.file(&files[0], Some(parent), path),
            [false, true] => self.file(&files[1], Some(parent), path),
            [true, true] => bail!("{path} has two files"),
            [false, false] => bail!("{path} has no file"),
        }
    }

    fn item(&mut self, module: usize, item: &Item) -> Result<()> {
        let named = match item {
            Item::Const(item) => Some((&item.ident, &item.vis)),
            Item::Enum(item) => Some((&item.ident, &item.vis)),
            Item::Fn(item) => Some((&item.sig.ident, &item.vis)),
            Item::Static(item) => Some((&item.ident, &item.vis)),
            Item::Struct(item) => Some((&item.ident, &item.vis)),
            Item::Trait(item) => Some((&item.ident, &item.vis)),
            Item::TraitAlias(item) => Some((&item.ident, &item.vis)),
            Item::Type(item) => Some((&item.ident, &item.vis)),
            Item::Union(item) => Some((&item.ident, &item.vis)),
            _ => None,
        };
        if let Some((name, vis)) = named {
            let within = self.within(module, vis);
            self.bind(module, name.to_string(), Meaning::Item, within);
        }
        match item {
            Item::Use(item) => {
                let within = self.within(module, &item.vis);
                for leaf in leaves(item) {
                    self.import(module, leaf, within, false);
                }
                return Ok(());
            }
            Item::Macro(item) if item.mac.path.is_ident("macro_rules") => {
                self.macro_rules(module, item);
                return Ok(());
            }
            Item::Macro(item) => {
                for name in declared(item.mac.tokens.clone()) {
                    self.bind(module, name, Meaning::Item, None);
                }
            }
            _ => {}
        }
        let mut seen = Mentions::default();
        seen.visit_item(item);
        self.take(module, seen)
    }

    /// A macro of this crate. What it expands to is resolved where it is used, except for paths
    /// that begin at the crate's root.
    fn macro_rules(&mut self, module: usize, item: &syn::ItemMacro) {
        let Some(name) = &item.ident else { return };
        let is_exported = item
            .attrs
            .iter()
            .any(|attr| attr.path().is_ident("macro_export"));
        // An exported macro has its name at the root, but its text stands here.
        self.bind(module, name.to_string(), Meaning::Item, Some(module));
        if is_exported && module != 0 {
            let mut path: Vec<_> = self.tree.modules[module].name.split("::").collect();
            let name = name.to_string();
            path.push(&name);
            let path = path.into_iter().map(str::to_owned).collect();
            self.bind(0, name, Meaning::Import(path), None);
        }
        let mut seen = Mentions::default();
        seen.tokens(item.mac.tokens.clone());
        seen.paths.retain(|mention| mention.path[0] == "crate");
        self.tree.modules[module].mentions.append(&mut seen.paths);
    }

    fn take(&mut self, module: usize, seen: Mentions) -> Result<()> {
        let Mentions {
            mut paths,
            imports,
            names,
            modules,
        } = seen;
        if let Some(line) = modules.first() {
            let file = &self.tree.files[self.tree.modules[module].file].path;
            bail!("{file}:{line}: a module inside a function is not read here: move it out");
        }
        for leaf in imports {
            self.import(module, leaf, Some(module), true);
        }
        for name in names {
            self.bind_as(module, name, Meaning::Item, Some(module), true);
        }
        self.tree.modules[module].mentions.append(&mut paths);
        Ok(())
    }

    fn import(&mut self, module: usize, leaf: Leaf, within: Option<usize>, is_local: bool) {
        let Leaf {
            path,
            binds,
            is_glob,
            line,
        } = leaf;
        if is_glob {
            self.tree.modules[module].globs.push(path.clone());
        }
        if let Some(name) = binds {
            let meaning = Meaning::Import(path.clone());
            self.bind_as(module, name, meaning, within, is_local);
        }
        let kind = if is_glob { Kind::Glob } else { Kind::Use };
        let mention = Mention { path, line, kind };
        self.tree.modules[module].mentions.push(mention);
    }

    fn bind(&mut self, module: usize, name: String, meaning: Meaning, within: Option<usize>) {
        self.bind_as(module, name, meaning, within, false);
    }

    fn bind_as(
        &mut self,
        module: usize,
        name: String,
        meaning: Meaning,
        within: Option<usize>,
        is_local: bool,
    ) {
        let binding = Binding {
            meaning,
            within,
            is_local,
        };
        let names = &mut self.tree.modules[module].names;
        names.entry(name).or_default().push(binding);
    }

    /// Where an item of this module can be seen. `pub(in …)` counts as everywhere, so that a glob
    /// import rather brings too much than too little.
    fn within(&self, module: usize, vis: &Visibility) -> Option<usize> {
        match vis {
            Visibility::Public(_) => None,
            Visibility::Inherited => Some(module),
            Visibility::Restricted(vis) if vis.path.is_ident("self") => Some(module),
            Visibility::Restricted(vis) if vis.path.is_ident("super") => {
                self.tree.modules[module].parent
            }
            Visibility::Restricted(_) => None,
        }
    }
}

/// One name that a `use` brings.
struct Leaf {
    path: Vec<String>,
    /// The name here, unless it is `_` or a glob.
    binds: Option<String>,
    is_glob: bool,
    line: usize,
}

/// What a `use` brings, unless it begins with `::` and so comes from another crate.
fn leaves(item: &syn::ItemUse) -> Vec<Leaf> {
    fn collect(tree: &UseTree, prefix: &[String], leaves: &mut Vec<Leaf>) {
        let line = tree.span().start().line;
        let with = |name: &Ident| {
            let mut path = prefix.to_vec();
            // `a::{self}` is `a`.
            if name != "self" || path.is_empty() {
                path.push(name.to_string());
            }
            path
        };
        let mut leaf = |path: Vec<String>, binds: Option<String>, is_glob| {
            leaves.push(Leaf {
                path,
                binds,
                is_glob,
                line,
            });
        };
        match tree {
            UseTree::Path(tree) => collect(&tree.tree, &with(&tree.ident), leaves),
            UseTree::Name(tree) => {
                let path = with(&tree.ident);
                let name = path.last().cloned();
                leaf(path, name, false);
            }
            UseTree::Rename(tree) => {
                let name = (tree.rename != "_").then(|| tree.rename.to_string());
                leaf(with(&tree.ident), name, false);
            }
            UseTree::Glob(_) => leaf(prefix.to_vec(), None, true),
            UseTree::Group(group) => {
                for tree in &group.items {
                    collect(tree, prefix, leaves);
                }
            }
        }
    }
    let mut leaves = Vec::new();
    if item.leading_colon.is_none() {
        collect(&item.tree, &[], &mut leaves);
    }
    leaves
}

/// What stands inside an item.
#[derive(Default)]
struct Mentions {
    paths: Vec<Mention>,
    imports: Vec<Leaf>,
    /// Of items inside functions.
    names: Vec<String>,
    /// The lines of modules inside functions.
    modules: Vec<usize>,
}

impl Mentions {
    fn path(&mut self, path: Vec<String>, line: usize) {
        // One name alone stands for what is here, or for what a `use` has brought.
        if path.len() > 1 {
            let kind = Kind::Path;
            self.paths.push(Mention { path, line, kind });
        }
    }

    /// Reads the paths among the tokens of a macro, whose grammar is its own.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(name) if begins_path(&tokens[..at]) => {
                    let line = name.span().start().line;
                    at = self.token_path(vec![name.to_string()], line, &tokens, at + 1);
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Follows a path over `::`, into braces too, and returns where it ends.
    fn token_path(
        &mut self,
        mut path: Vec<String>,
        line: usize,
        tokens: &[TokenTree],
        mut at: usize,
    ) -> usize {
        while is_colons(tokens, at) {
            match tokens.get(at + 2) {
                Some(TokenTree::Ident(name)) => path.push(name.to_string()),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    for part in inner.split(|tree| is_mark(tree, ',')) {
                        if let [TokenTree::Ident(name), ..] = part {
                            let mut path = path.clone();
                            if name != "self" {
                                path.push(name.to_string());
                            }
                            self.token_path(path, line, part, 1);
                        }
                    }
                    return at + 3;
                }
                _ => break,
            }
            at += 3;
        }
        self.path(path, line);
        at
    }
}

/// The items that are written out in a macro's tokens: `thread_local!` declares a `static`, say.
fn declared(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let pairs = tokens.windows(2).filter_map(|pair| match pair {
        [TokenTree::Ident(keyword), TokenTree::Ident(name)] => Some((keyword, name)),
        _ => None,
    });
    let keywords = [
        "const", "enum", "fn", "static", "struct", "trait", "type", "union",
    ];
    pairs
        .filter(|(keyword, _)| keywords.iter().any(|other| keyword == other))
        .map(|(_, name)| name.to_string())
        .collect()
}

/// Whether a name after these tokens can be the first one of a path of this crate.
fn begins_path(before: &[TokenTree]) -> bool {
    match before {
        // `::name` is in another crate.
        [.., colon, last] if is_mark(colon, ':') && is_mark(last, ':') => false,
        [.., last] => !is_mark(last, '.') && !is_mark(last, '\''),
        [] => true,
    }
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let is = |at: usize| tokens.get(at).is_some_and(|tree| is_mark(tree, ':'));
    is(at) && is(at + 1)
}

fn is_mark(tree: &TokenTree, mark: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == mark)
}

impl<'ast> Visit<'ast> for Mentions {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let names = path.segments.iter().map(|name| name.ident.to_string());
            self.path(names.collect(), path.span().start().line);
        }
        // The arguments of its segments have paths, too.
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.visit_path(&mac.path);
        self.tokens(mac.tokens.clone());
    }

    /// Derives and helper attributes come from other crates.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    /// It names a module that an item lies in, and imports nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_item(&mut self, item: &'ast Item) {
        if is_for_tests(item) {
            return;
        }
        match item {
            Item::Use(item) => self.imports.extend(leaves(item)),
            Item::Mod(item) => self.modules.push(item.span().start().line),
            item => visit::visit_item(self, item),
        }
    }

    fn visit_stmt(&mut self, stmt: &'ast syn::Stmt) {
        if is_for_tests(stmt) {
            return;
        }
        if let syn::Stmt::Item(item) = stmt {
            let name = match item {
                Item::Const(item) => Some(&item.ident),
                Item::Enum(item) => Some(&item.ident),
                Item::Fn(item) => Some(&item.sig.ident),
                Item::Macro(item) => item.ident.as_ref(),
                Item::Static(item) => Some(&item.ident),
                Item::Struct(item) => Some(&item.ident),
                Item::Trait(item) => Some(&item.ident),
                Item::Type(item) => Some(&item.ident),
                Item::Union(item) => Some(&item.ident),
                _ => None,
            };
            self.names.extend(name.map(Ident::to_string));
        }
        visit::visit_stmt(self, stmt);
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        if !is_for_tests(item) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast syn::TraitItem) {
        if !is_for_tests(item) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_for_tests(field) {
            visit::visit_field(self, field);
        }
    }

    fn visit_field_value(&mut self, field: &'ast syn::FieldValue) {
        if !is_for_tests(field) {
            visit::visit_field_value(self, field);
        }
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        if !is_for_tests(variant) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if !is_for_tests(arm) {
            visit::visit_arm(self, arm);
        }
    }
}

/// Whether this is there in tests only, by the attributes in front of it.
fn is_for_tests(node: &impl ToTokens) -> bool {
    let attributes = |input: ParseStream<'_>| {
        let attributes = Attribute::parse_outer(input)?;
        // What follows is whatever has the attributes.
        let _: TokenStream = input.parse()?;
        Ok(attributes)
    };
    let tokens = node.to_token_stream();
    let is_marked = matches!(
        tokens.clone().into_iter().next(),
        Some(TokenTree::Punct(mark)) if mark.as_char() == '#'
    );
    // A file that parsed has no broken attribute.
    let attributes = if is_marked {
        attributes.parse2(tokens).unwrap_or_default()
    } else {
        Vec::new()
    };
    attributes.iter().any(|attribute| {
        let last = attribute.path().segments.last();
        last.is_some_and(|name| name.ident == "test")
            || attribute.path().is_ident("cfg")
                && attribute
                    .parse_args::<Meta>()
                    .is_ok_and(|condition| needs_tests(&condition))
    })
}

/// Whether a condition can hold in tests only.
fn needs_tests(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) => {
            let parts = list
                .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
                .unwrap_or_default();
            if list.path.is_ident("all") {
                parts.iter().any(needs_tests)
            } else if list.path.is_ident("any") {
                !parts.is_empty() && parts.iter().all(needs_tests)
            } else {
                false
            }
        }
        Meta::NameValue(_) => false,
    }
}
