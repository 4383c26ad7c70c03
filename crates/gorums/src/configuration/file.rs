//! Configurations in TOML, read once or again and again.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use serde::Deserialize;

use super::{Change, ConfigurationError, NodeAddress};
use crate::node_id::NodeId;
use crate::runtime::{BoxFuture, Clock, SystemClock, bounded};

/// How many bytes a file has at most.
const LONGEST: u64 = 16 * 1024 * 1024;

/// The least time between two looks.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// How long a file stays as it is before it is taken to be whole.
const SETTLES: Duration = Duration::from_secs(1);

/// A TOML file of nodes, as [`ConfigurationBuilder::file`] reads it, that is looked at again and
/// again: a stream for [`Membership::follow`], which makes the nodes those of the file.
///
/// What the file says is taken when it has said the same for a second, or for the interval where
/// that is shorter: a file that is being written may look like one with fewer nodes. Better still
/// is to write another file and to rename it. A file that is missing, is none of nodes, or lists
/// none, is an error and changes nothing; so is one that [`Membership::set`] refuses. What the file
/// says is said again at each look, so it holds also where the membership was changed by hand, or
/// could not be changed at first.
///
/// ```no_run
/// use std::time::Duration;
/// use gorums::{Configuration, membership::NodeFile};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let members = Configuration::builder().file("nodes.toml")?.membership()?;
/// tokio::spawn(members.follow(NodeFile::new("nodes.toml", Duration::from_secs(5))));
///
/// // Or by hand, at a signal say.
/// members.set(NodeFile::read("nodes.toml")?)?;
/// # Ok(())
/// # }
/// ```
///
/// [`ConfigurationBuilder::file`]: super::ConfigurationBuilder::file
/// [`Membership::follow`]: super::Membership::follow
/// [`Membership::set`]: super::Membership::set
#[must_use = "a stream does nothing until it is polled"]
pub struct NodeFile {
    path: Arc<Path>,
    interval: Duration,
    clock: Arc<dyn Clock>,
    /// None before the first look.
    looking: Option<BoxFuture<'static, Text>>,
    /// What was seen last.
    seen: Option<Text>,
}

/// The text of a file, or why there is none.
type Text = Result<String, String>;

impl NodeFile {
    /// Looks at a file at this interval, 100 ms at least. It need not be there yet.
    pub fn new(path: impl Into<PathBuf>, interval: Duration) -> Self {
        Self {
            path: path.into().into(),
            interval: bounded(interval).max(MIN_INTERVAL),
            clock: Arc::new(SystemClock),
            looking: None,
            seen: None,
        }
    }

    /// Where time comes from. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Reads the nodes of a file once.
    ///
    /// # Errors
    /// The file cannot be read, has more than 16 MiB, is not TOML, has no node, or has an unknown
    /// key.
    pub fn read(path: impl AsRef<Path>) -> Result<Vec<NodeAddress>, ConfigurationError> {
        let path = path.as_ref();
        parse(path, text(path).as_deref().map_err(String::as_str))
    }

    /// Reads the file after a pause, in a thread of its own: a file system may be slow.
    fn look_after(&self, pause: Duration) -> BoxFuture<'static, Text> {
        let path = Arc::clone(&self.path);
        let clock = Arc::clone(&self.clock);
        Box::pin(async move {
            if !pause.is_zero() {
                clock.sleep_until(clock.now() + pause).await;
            }
            let read = tokio::task::spawn_blocking(move || text(&path)).await;
            read.unwrap_or_else(|error| Err(error.to_string()))
        })
    }
}

impl Stream for NodeFile {
    type Item = Result<Change, ConfigurationError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.looking.is_none() {
                this.looking = Some(this.look_after(Duration::ZERO));
            }
            let looking = this.looking.as_mut().expect("it was set above");
            let text = ready!(looking.as_mut().poll(cx));
            let settled = this.seen.as_ref() == Some(&text);
            let pause = match settled {
                true => this.interval,
                false => this.interval.min(SETTLES),
            };
            this.looking = Some(this.look_after(pause));
            let text = this.seen.insert(text);
            if settled {
                let nodes = parse(&this.path, text.as_deref().map_err(String::as_str));
                return Poll::Ready(Some(nodes.map(Change::Set)));
            }
        }
    }
}

impl fmt::Debug for NodeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeFile")
            .field("path", &self.path)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

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
fn text(path: &Path) -> Text {
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

/// The nodes that the text of a file lists.
fn parse(path: &Path, text: Result<&str, &str>) -> Result<Vec<NodeAddress>, ConfigurationError> {
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
