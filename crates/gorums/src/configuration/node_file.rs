//! A file of nodes that is looked at again and again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;

use super::file::{Text, parse, read, text};
use super::{Change, ConfigurationError, NodeAddress};
use crate::runtime::{BoxFuture, Clock, SystemClock, bounded};

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
        read(path.as_ref())
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
