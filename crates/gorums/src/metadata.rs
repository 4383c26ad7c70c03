use std::fmt;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::error::{Status, excerpt};

/// How many entries the metadata of a request has at most, there and back.
pub(crate) const MAX_ENTRIES: usize = 4096;

/// How large the metadata of a connection may be, as HTTP/2 counts headers: name, value, and
/// [`OVERHEAD`] for each. Servers take 16 KiB of headers, and a connection has some of its own.
pub(crate) const MAX_CONNECTION: usize = 15 * 1024;

/// What HTTP/2 counts for each header beside its name and value.
const OVERHEAD: usize = 32;

/// Keys that belong to HTTP or gRPC, also where metadata goes in the envelope of a request: a
/// gateway may make headers of it.
const RESERVED: [&str; 10] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Names and values that travel beside a request, or beside a whole connection.
///
/// Keys are case-insensitive and are kept in lower case, values are UTF-8 text, a key may have
/// several values, and the order of insertion is kept. Values that are not text cannot travel in
/// the envelope of a request, so keys that end in `-bin` are refused. There are 4,096 entries at
/// most.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    entries: Vec<(String, String)>,
}

/// Headers by which a client names its sessions. Whoever knows them could go on with these.
const SECRET: [&str; 2] = ["gorums-session", "gorums-client"];

impl Metadata {
    /// No entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value; values that the key has already stay.
    ///
    /// # Errors
    /// The key is not a legal header name, ends in `-bin`, or belongs to Gorums, to gRPC or to HTTP
    /// (`gorums-…`, `grpc-…`, `connection`, `content-length`, `content-type`, `host`, `keep-alive`,
    /// `proxy-connection`, `te`, `transfer-encoding`, `upgrade`, `user-agent`); or there
    /// are 4,096 entries already, more than which no node takes.
    pub fn append(&mut self, key: impl AsRef<str>, value: impl Into<String>) -> Result<(), Status> {
        let key = checked_key(key.as_ref())?;
        if self.entries.len() >= MAX_ENTRIES {
            let why = format!("there are {MAX_ENTRIES} entries, and no node takes more");
            return Err(bad_key(&key, &why));
        }
        self.entries.push((key, value.into()));
        Ok(())
    }

    /// The first value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|(k, _)| k.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.as_str())
    }

    /// All values of a key, in the order in which they were added.
    pub fn get_all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.entries
            .iter()
            .filter(move |(k, _)| k.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.as_str())
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What a peer sent, as it is. The rules of what may be sent do not apply to it.
    pub(crate) fn received<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        Self {
            entries: entries
                .map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()))
                .collect(),
        }
    }

    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        // What is secret is for nobody to see.
        let headers = headers.iter();
        let headers = headers.filter(|(name, _)| !SECRET.contains(&name.as_str()));
        Self::received(headers.filter_map(|(name, value)| {
            Some((name.as_str(), std::str::from_utf8(value.as_bytes()).ok()?))
        }))
    }

    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) -> Result<(), Status> {
        for (key, value) in self.iter() {
            let name =
                HeaderName::from_bytes(key.as_bytes()).map_err(|_| bad_key(key, NOT_A_NAME))?;
            let value = HeaderValue::from_str(value)
                .ok()
                .filter(|_| value.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
                .ok_or_else(|| {
                    bad_key(
                        key,
                        "connection metadata travels as HTTP headers, whose values are visible \
                         ASCII",
                    )
                })?;
            headers.append(name, value);
        }
        let size = |key: &str, value: &str| key.len() + value.len() + OVERHEAD;
        let all: usize = self.iter().map(|(key, value)| size(key, value)).sum();
        let largest = self.iter().max_by_key(|(key, value)| size(key, value));
        match largest {
            Some((key, _)) if all > MAX_CONNECTION => Err(bad_key(
                key,
                &format!(
                    "the metadata of a connection has {all} bytes in all, of which this entry has \
                     the most, and may have {MAX_CONNECTION} ({OVERHEAD} count for each entry \
                     beside its key and value)"
                ),
            )),
            _ => Ok(()),
        }
    }
}

const NOT_A_NAME: &str = "a key is a legal HTTP header name";

fn checked_key(key: &str) -> Result<String, Status> {
    let name = HeaderName::from_bytes(key.as_bytes()).map_err(|_| bad_key(key, NOT_A_NAME))?;
    let name = name.as_str();
    if name.ends_with("-bin") {
        return Err(bad_key(
            key,
            "the wire carries text only; encode the value (as base64, say) under a key without \
             \"-bin\"",
        ));
    }
    if name.starts_with("grpc-") || name.starts_with("gorums-") || RESERVED.contains(&name) {
        return Err(bad_key(
            key,
            "the key is reserved: it belongs to HTTP, gRPC or Gorums",
        ));
    }
    Ok(name.to_owned())
}

fn bad_key(key: &str, why: &str) -> Status {
    Status::invalid_argument(format!("metadata {:?}: {why}", excerpt(key)))
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_case_insensitive_and_keep_all_values_in_order() {
        let mut metadata = Metadata::new();
        metadata.append("User", "a").expect("legal");
        metadata.append("other", "x").expect("legal");
        metadata.append("user", "b").expect("legal");
        assert_eq!(metadata.get("USER"), Some("a"));
        assert_eq!(metadata.get_all("user").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(metadata.len(), 3);
    }

    #[test]
    fn keys_that_cannot_travel_are_refused_by_name() {
        for key in [
            "",
            "with space",
            "trace-bin",
            "grpc-timeout",
            "Gorums-Node-Id",
            "TE",
            "Transfer-Encoding",
        ]
        .into_iter()
        .chain(RESERVED)
        {
            let error = Metadata::new().append(key, "v").expect_err("not legal");
            assert!(error.message().contains(&format!("{key:?}")), "{error}");
        }
    }

    #[test]
    fn an_entry_more_than_nodes_take_is_refused() {
        let mut metadata = Metadata::new();
        for _ in 0..MAX_ENTRIES {
            metadata.append("key", "").expect("legal");
        }
        let error = metadata.append("last", "").expect_err("one too many");
        assert!(error.message().contains("\"last\""), "{error}");
        assert_eq!(metadata.len(), MAX_ENTRIES);
    }

    #[test]
    fn what_a_connection_cannot_carry_is_refused_by_its_largest_entry() {
        let mut metadata = Metadata::new();
        metadata.append("small", "x").expect("legal");
        let rest = MAX_CONNECTION - "smallx".len() - "large".len() - 2 * OVERHEAD;
        let mut fits = metadata.clone();
        fits.append("large", "x".repeat(rest)).expect("legal");
        fits.write_headers(&mut HeaderMap::new()).expect("it fits");
        metadata
            .append("large", "x".repeat(rest + 1))
            .expect("legal");
        let error = metadata.write_headers(&mut HeaderMap::new());
        let error = error.expect_err("a byte too many").message().to_owned();
        assert!(
            error.contains("\"large\"") && error.contains("15361"),
            "{error}"
        );
    }

    #[test]
    fn headers_take_visible_ascii_only() {
        let mut metadata = Metadata::new();
        metadata
            .append("name", "größe")
            .expect("fine in an envelope");
        let error = metadata
            .write_headers(&mut HeaderMap::new())
            .expect_err("not in a header");
        assert!(error.message().contains("name"), "{error}");
    }
}
