//! Configurations in TOML.

use std::path::Path;

use serde::Deserialize;

use super::ConfigurationError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    node: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) id: Option<u32>,
    pub(super) address: String,
}

/// Reads the nodes of a file.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, ConfigurationError> {
    let failed = |reason: String| ConfigurationError::File {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let file: File = toml::from_str(&text).map_err(|error| failed(error.to_string()))?;
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
    Ok(file.node)
}
