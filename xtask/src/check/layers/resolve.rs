//! Which file defines what a path names.

use std::collections::BTreeSet;

use super::tree::{Kind, Meaning, Mention, Tree};

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// An item of this file, or something inside it: a variant, an associated function.
    Item(usize),
    Module(usize),
    /// Something of another crate.
    Elsewhere,
}

pub(super) struct Resolver<'a> {
    pub(super) tree: &'a Tree,
    /// The names of other crates.
    pub(super) externs: &'a BTreeSet<String>,
}

/// The names that are being followed, so that two `use` that name each other come to an end.
type Stack = Vec<(usize, String)>;

impl Resolver<'_> {
    /// What a module imports by this mention. An error is the part of the path that leads nowhere.
    pub(super) fn targets(
        &self,
        module: usize,
        mention: &Mention,
    ) -> Result<BTreeSet<Target>, String> {
        let first = mention.path.first().map_or("", String::as_str);
        if mention.kind == Kind::Path && !matches!(first, "crate" | "self" | "super") {
            // The name of an item is one that is here, or that a `use` has brought. Behind the name
            // of a module there may be another file.
            let names = self.name(module, first, true, &mut Stack::new());
            if !names.iter().any(|name| matches!(name, Target::Module(_))) {
                return Ok(BTreeSet::new());
            }
        }
        let targets = self.follow(module, &mention.path, &mut Stack::new())?;
        if mention.kind != Kind::Glob {
            return Ok(targets);
        }
        // All that can be seen from here, used or not.
        let mut all = targets.clone();
        for target in targets {
            if let Target::Module(other) = target {
                all.extend(self.visible(other, module));
            }
        }
        Ok(all)
    }

    fn follow(
        &self,
        module: usize,
        path: &[String],
        stack: &mut Stack,
    ) -> Result<BTreeSet<Target>, String> {
        let mut here = module;
        let mut rest = path;
        let mut targets = BTreeSet::new();
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "crate" => here = 0,
                "self" => {}
                "super" => {
                    here = self.tree.modules[here]
                        .parent
                        .ok_or("the crate's root has no `super`")?;
                }
                name if rest.len() == path.len() => {
                    targets = self.name(here, name, true, stack);
                    if targets.is_empty() && self.externs.contains(name) {
                        targets.insert(Target::Elsewhere);
                    }
                    if targets.is_empty() {
                        return Err(format!(
                            "`{name}` is neither a name in {} nor a crate that it depends on",
                            self.tree.modules[here].name
                        ));
                    }
                    rest = others;
                    break;
                }
                _ => break,
            }
            targets = [Target::Module(here)].into();
            rest = others;
        }
        for name in rest {
            let mut next = BTreeSet::new();
            let mut searched = Vec::new();
            for target in targets {
                match target {
                    Target::Module(inside) => {
                        next.extend(self.name(inside, name, false, stack));
                        searched.push(self.tree.modules[inside].name.as_str());
                    }
                    // What follows is inside the item.
                    other => {
                        next.insert(other);
                    }
                }
            }
            if next.is_empty() {
                return Err(format!("there is no `{name}` in {}", searched.join(" or ")));
            }
            targets = next;
        }
        Ok(targets)
    }

    /// Everything that a name stands for in a module. Names from inside its functions count only
    /// where it is the module itself that asks.
    fn name(&self, module: usize, name: &str, is_own: bool, stack: &mut Stack) -> BTreeSet<Target> {
        let mut targets = BTreeSet::new();
        let inside = &self.tree.modules[module];
        let is_followed = stack.iter().any(|(m, n)| *m == module && n == name);
        stack.push((module, name.to_owned()));
        for binding in inside.names.get(name).into_iter().flatten() {
            match &binding.meaning {
                _ if binding.is_local && !is_own => {}
                Meaning::Item => {
                    targets.insert(Target::Item(inside.file));
                }
                Meaning::Module(module) => {
                    targets.insert(Target::Module(*module));
                }
                Meaning::Import(path) if !is_followed => {
                    // A path that leads nowhere is told where the `use` itself is resolved.
                    let followed = self.follow(module, path, stack).unwrap_or_default();
                    targets.extend(followed.into_iter().map(|target| match target {
                        // For the rest of the crate it comes from here.
                        Target::Elsewhere => Target::Item(inside.file),
                        target => target,
                    }));
                }
                Meaning::Import(_) => {}
            }
        }
        if targets.is_empty() && !is_followed {
            for path in &inside.globs {
                for target in self.follow(module, path, stack).unwrap_or_default() {
                    if let Target::Module(other) = target {
                        targets.extend(self.name(other, name, false, stack));
                    }
                }
            }
        }
        stack.pop();
        targets
    }

    /// What a glob import of a module brings to another one.
    fn visible(&self, module: usize, from: usize) -> BTreeSet<Target> {
        let mut targets = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut todo = vec![module];
        while let Some(module) = todo.pop() {
            if !seen.insert(module) {
                continue;
            }
            let inside = &self.tree.modules[module];
            for (name, bindings) in &inside.names {
                let is_visible = bindings.iter().any(|binding| {
                    !binding.is_local
                        && binding
                            .within
                            .is_none_or(|within| self.is_inside(from, within))
                });
                if is_visible {
                    targets.extend(self.name(module, name, false, &mut Stack::new()));
                }
            }
            for path in &inside.globs {
                let brought = self.follow(module, path, &mut Stack::new());
                for target in brought.unwrap_or_default() {
                    match target {
                        Target::Module(other) => todo.push(other),
                        item => {
                            targets.insert(item);
                        }
                    }
                }
            }
        }
        // A child module that comes along is imported where something of it is named.
        targets.retain(|target| !matches!(target, Target::Module(_)));
        targets
    }

    fn is_inside(&self, mut module: usize, outer: usize) -> bool {
        loop {
            if module == outer {
                return true;
            }
            match self.tree.modules[module].parent {
                Some(parent) => module = parent,
                None => return false,
            }
        }
    }
}
