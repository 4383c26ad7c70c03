//! Configurations in TOML.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::{ConfigurationError, NodeAddress};
use crate::node_id::NodeId;

/// How many bytes a file has at most.
const LONGEST: u64 = 16 * 1024 * 1024;

/// The text of a file, or why there is none.
pub(super) type Text = Result<String, String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    node: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: Option<u32>,
    address: String,
}

/// Reads a file of bounded size.
pub(super) fn text(path: &Path) -> Text {
    let failed = |error: std::io::Error| error.to_string();
    // Looked at before, since to open a pipe waits for who writes to it.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err("it is no file".to_owned());
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    let read = file.take(LONGEST + 1).read_to_string(&mut text);
    if read.map_err(failed)? as u64 > LONGEST {
        return Err(format!("it has more than {LONGEST} bytes"));
    }
    Ok(text)
}

/// Reads the nodes of a file.
pub(super) fn read(path: &Path) -> Result<Vec<NodeAddress>, ConfigurationError> {
    parse(path, text(path).as_deref().map_err(String::as_str))
}

/// The nodes that the text of a file lists.
pub(super) fn parse(
    path: &Path,
    text: Result<&str, &str>,
) -> Result<Vec<NodeAddress>, ConfigurationError> {
    let failed = |reason: String| ConfigurationError::File {
        path: path.to_owned(),
        reason,
    };
    let text = text.map_err(|error| failed(error.to_owned()))?;
    let file: File = toml::from_str(text).map_err(|error| failed(error.to_string()))?;
    let with_id = file.node.iter().filter(|entry| entry.id.is_some()).count();
    if file.node.is_empty() {
        return Err(failed(
            "there is no node; write [[node]] sections, each with an address".to_owned(),
        ));
    }
    if with_id != 0 && with_id != file.node.len() {
        return Err(failed(format!(
            "{with_id} of {} nodes have an id: give one to all or to none",
            file.node.len()
        )));
    }
    let nodes = file.node.into_iter().map(|entry| NodeAddress {
        id: entry.id.map(NodeId::from),
        address: entry.address,
    });
    Ok(nodes.collect())
}
