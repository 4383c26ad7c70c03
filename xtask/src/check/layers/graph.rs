//! Which file imports which, and the circles among them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use anyhow::{Result, bail};
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::resolve::{Resolver, Target};
use super::tree::{File, Tree};

/// One file imports something of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) line: usize,
    /// As it is written.
    pub(super) path: String,
    /// Whether it is a module that is imported, and nothing of it. What is then used of the module
    /// is an import of its own, so this one makes no circle.
    is_module: bool,
}

#[derive(Debug)]
pub(super) struct Graph {
    pub(super) files: Vec<File>,
    /// By file and line.
    pub(super) imports: Vec<Import>,
}

impl Graph {
    /// Reads the crate whose `lib.rs` is in this folder. Fails where a path of the crate leads
    /// nowhere, since an import that is not understood could be one that must not be.
    pub(super) fn read(src: &Path, externs: &BTreeSet<String>) -> Result<Self> {
        let tree = Tree::read(src)?;
        let resolver = Resolver {
            tree: &tree,
            externs,
        };
        let mut imports = Vec::new();
        let mut unresolved = Vec::new();
        for (number, module) in tree.modules.iter().enumerate() {
            let from = module.file;
            for mention in &module.mentions {
                let path = mention.path.join("::");
                let targets = match resolver.targets(number, mention) {
                    Ok(targets) => targets,
                    Err(why) => {
                        unresolved.push(format!(
                            "\n  {}:{}: `{path}` cannot be resolved: {why}",
                            tree.files[from].path, mention.line
                        ));
                        continue;
                    }
                };
                for target in targets {
                    let (to, is_module) = match target {
                        Target::Item(file) => (file, false),
                        Target::Module(module) => (tree.modules[module].file, true),
                        Target::Elsewhere => continue,
                    };
                    if to != from {
                        imports.push(Import {
                            from,
                            to,
                            line: mention.line,
                            path: path.clone(),
                            is_module,
                        });
                    }
                }
            }
        }
        if !unresolved.is_empty() {
            bail!("not every import is understood:{}", unresolved.concat());
        }
        imports.sort_by(|a, b| {
            let key = |import: &Import| (import.from, import.line, import.to, import.is_module);
            key(a).cmp(&key(b)).then_with(|| a.path.cmp(&b.path))
        });
        imports.dedup();
        Ok(Self {
            files: tree.files,
            imports,
        })
    }

    /// The circles of more than `largest` files, and those that leave a room, each told with its
    /// files and one way round it.
    pub(super) fn circles<R: PartialEq>(
        &self,
        largest: usize,
        room: impl Fn(&str) -> R,
    ) -> Vec<String> {
        let room = |file: usize| room(&self.files[file].path);
        let mut graph = DiGraph::<(), ()>::new();
        for _ in &self.files {
            graph.add_node(());
        }
        let mut next: BTreeMap<usize, Vec<&Import>> = BTreeMap::new();
        for import in self.imports.iter().filter(|import| !import.is_module) {
            graph.update_edge(NodeIndex::new(import.from), NodeIndex::new(import.to), ());
            next.entry(import.from).or_default().push(import);
        }
        let mut told = Vec::new();
        for circle in tarjan_scc(&graph) {
            let files: BTreeSet<usize> = circle.into_iter().map(NodeIndex::index).collect();
            let Some(&first) = files.first() else {
                continue;
            };
            let leaves = files.iter().any(|&file| room(file) != room(first));
            if !leaves && files.len() <= largest {
                continue;
            }
            let edges = files.iter().filter_map(|file| next.get(file)).flatten();
            let edges: Vec<&Import> = edges
                .filter(|import| files.contains(&import.to))
                .copied()
                .collect();
            // Where a circle leaves its room, the way that is shown leaves it too.
            let way = edges
                .iter()
                .filter(|edge| !leaves || room(edge.from) != room(edge.to))
                .map(|edge| way_round(edge, &edges))
                .min_by_key(Vec::len)
                .unwrap_or_default();
            told.push(self.tell(&files, &way, leaves, largest));
        }
        told.sort();
        told
    }

    fn tell(
        &self,
        files: &BTreeSet<usize>,
        way: &[&Import],
        leaves: bool,
        largest: usize,
    ) -> String {
        let mut names: Vec<_> = files
            .iter()
            .map(|&file| self.files[file].path.as_str())
            .collect();
        names.sort_unstable();
        let why = if leaves {
            "and do not all lie in one room".to_owned()
        } else {
            format!("and more than {largest} are too many")
        };
        let mut text = format!(
            "{} files import each other in a circle, {why}: {}; one way round:",
            files.len(),
            names.join(", ")
        );
        for import in way {
            text += &format!(
                "\n    {}:{} imports `{}` of {}",
                self.files[import.from].path, import.line, import.path, self.files[import.to].path
            );
        }
        text
    }
}

/// The shortest way round a circle that begins with this import.
fn way_round<'a>(first: &'a Import, edges: &[&'a Import]) -> Vec<&'a Import> {
    let mut reached_by: BTreeMap<usize, &Import> = BTreeMap::new();
    let mut queue = VecDeque::from([first.to]);
    while let Some(file) = queue.pop_front() {
        if file == first.from {
            break;
        }
        for &edge in edges.iter().filter(|edge| edge.from == file) {
            if edge.to != first.to && !reached_by.contains_key(&edge.to) {
                reached_by.insert(edge.to, edge);
                queue.push_back(edge.to);
            }
        }
    }
    let mut way = Vec::new();
    let mut file = first.from;
    while let Some(&edge) = reached_by.get(&file) {
        way.push(edge);
        file = edge.from;
    }
    way.push(first);
    way.reverse();
    way
}
