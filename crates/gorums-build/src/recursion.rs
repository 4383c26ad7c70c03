//! Messages that contain themselves by way of a group.
//!
//! prost puts a field into a `Box` where its message would contain itself, but does not follow
//! groups when it looks for that.

use std::collections::{HashMap, HashSet};

use prost_types::DescriptorProto;
use prost_types::field_descriptor_proto::{Label, Type};

use crate::descriptor::File;

/// The paths, as prost takes them, of the groups that lead back to the message they stand in.
pub(crate) fn recursive_groups(files: &[File]) -> Vec<String> {
    let mut graph = Graph::default();
    for file in files {
        let package = match file.proto.package() {
            "" => String::new(),
            package => format!(".{package}"),
        };
        for message in &file.proto.message_type {
            graph.add(&package, message);
        }
    }
    let leads_back = |group: &&Group| graph.reaches(&group.target, &group.message);
    let recursive = graph.groups.iter().filter(leads_back);
    recursive.map(|group| group.path.clone()).collect()
}

#[derive(Default)]
struct Graph {
    /// The messages of which each has one.
    fields: HashMap<String, Vec<String>>,
    groups: Vec<Group>,
}

/// A field that is a group. Names are full, with a leading dot.
struct Group {
    message: String,
    path: String,
    target: String,
}

impl Graph {
    fn add(&mut self, around: &str, message: &DescriptorProto) {
        let name = format!("{around}.{}", message.name());
        for field in &message.field {
            let is_message = matches!(field.r#type(), Type::Message | Type::Group);
            // Those that repeat are in a `Vec`.
            if !is_message || field.label() == Label::Repeated {
                continue;
            }
            let target = field.type_name().to_owned();
            let fields = self.fields.entry(name.clone()).or_default();
            fields.push(target.clone());
            if field.r#type() == Type::Group {
                let oneof = field.oneof_index.and_then(|index| {
                    let oneof = message.oneof_decl.get(usize::try_from(index).ok()?)?;
                    Some(format!("{}.", oneof.name()))
                });
                self.groups.push(Group {
                    path: format!("{name}.{}{}", oneof.unwrap_or_default(), field.name()),
                    message: name.clone(),
                    target,
                });
            }
        }
        for nested in &message.nested_type {
            self.add(&name, nested);
        }
    }

    fn reaches(&self, from: &str, to: &str) -> bool {
        let mut seen = HashSet::from([from]);
        let mut next = vec![from];
        while let Some(message) = next.pop() {
            if message == to {
                return true;
            }
            let fields = self.fields.get(message).into_iter().flatten();
            next.extend(
                fields
                    .map(String::as_str)
                    .filter(|field| seen.insert(field)),
            );
        }
        false
    }
}
