//! What can go wrong, and how it is told.

use std::any::Any;
use std::path::Path;
use std::{fmt, io};

/// Why no code was generated.
///
/// Mistakes in `.proto` files are collected over all files, so that one run shows all of them;
/// [`diagnostics`](Self::diagnostics) gives them one by one. `Debug` prints the same text as
/// `Display`, because that is what cargo shows of an error that a build script returns from `main`.
///
/// An [`io::Error`] can be made of it, so a `build.rs` with `fn main() -> std::io::Result<()>` can
/// use `?`.
pub struct Error {
    kind: Kind,
}

enum Kind {
    Proto(Vec<Diagnostic>),
    Descriptor(prost::DecodeError),
    Setting(String),
    Panicked(String),
    Io { what: String, source: io::Error },
}

impl Error {
    /// The mistakes in the `.proto` files, by file and line. Empty if the cause is something else.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match &self.kind {
            Kind::Proto(diagnostics) => diagnostics,
            Kind::Descriptor(_) | Kind::Setting(_) | Kind::Panicked(_) | Kind::Io { .. } => &[],
        }
    }

    pub(crate) fn proto(mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort();
        // A file that two others import is met twice.
        diagnostics.dedup();
        Self {
            kind: Kind::Proto(diagnostics),
        }
    }

    pub(crate) fn descriptor(error: prost::DecodeError) -> Self {
        Self {
            kind: Kind::Descriptor(error),
        }
    }

    pub(crate) fn setting(message: String) -> Self {
        Self {
            kind: Kind::Setting(message),
        }
    }

    /// prost-build panicked with this.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("it did not say why");
        Self {
            kind: Kind::Panicked(text.to_owned()),
        }
    }

    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self {
            kind: Kind::Io {
                what: what.into(),
                source,
            },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Proto(diagnostics) => {
                match diagnostics.len() {
                    1 => f.write_str("1 mistake in the .proto files")?,
                    count => write!(f, "{count} mistakes in the .proto files")?,
                }
                diagnostics
                    .iter()
                    .try_for_each(|diagnostic| write!(f, "\n\n{diagnostic}"))
            }
            Kind::Descriptor(error) => {
                write!(
                    f,
                    "not an encoded google.protobuf.FileDescriptorSet: {error}"
                )
            }
            Kind::Setting(message) => f.write_str(message),
            Kind::Panicked(text) => write!(
                f,
                "prost-build, which generates the messages, gave up on these files without saying where: {text}"
            ),
            Kind::Io { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::Proto(_) | Kind::Setting(_) | Kind::Panicked(_) => None,
            Kind::Descriptor(error) => Some(error),
            Kind::Io { source, .. } => Some(source),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error.kind {
            Kind::Proto(_) | Kind::Descriptor(_) | Kind::Panicked(_) => io::ErrorKind::InvalidData,
            Kind::Setting(_) => io::ErrorKind::InvalidInput,
            Kind::Io { source, .. } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}

/// One mistake in a `.proto` file: where it is, what it is, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    // Position first: the derived order is the order in which mistakes are shown.
    position: Option<Position>,
    service: Option<String>,
    method: Option<String>,
    message: String,
    help: Option<String>,
}

impl Diagnostic {
    /// The file as it was found on disk, or its name in the descriptor set.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        let position = self.position.as_ref()?;
        Some(Path::new(&position.file))
    }

    /// The line in the file, counted from 1.
    #[must_use]
    pub fn line(&self) -> Option<u32> {
        Some(self.position.as_ref()?.start?.0)
    }

    /// The column in the line, counted from 1.
    #[must_use]
    pub fn column(&self) -> Option<u32> {
        Some(self.position.as_ref()?.start?.1)
    }

    /// The full proto name of the service, as in `proto.Storage`.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.service.as_deref()
    }

    /// The proto name of the method, as in `ReadQC`.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        self.method.as_deref()
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How to mend it.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    pub(crate) fn new(position: Option<Position>, message: impl Into<String>) -> Self {
        Self {
            position,
            service: None,
            method: None,
            message: message.into(),
            help: None,
        }
    }

    #[must_use]
    pub(crate) fn in_service(mut self, full_name: impl Into<String>) -> Self {
        self.service = Some(full_name.into());
        self
    }

    #[must_use]
    pub(crate) fn in_method(mut self, name: impl Into<String>) -> Self {
        self.method = Some(name.into());
        self
    }

    #[must_use]
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = &self.position {
            write!(f, "{position}: ")?;
        }
        match (&self.service, &self.method) {
            (Some(service), Some(method)) => {
                write!(f, "service `{service}`, method `{method}`: ")?;
            }
            (Some(service), None) => write!(f, "service `{service}`: ")?,
            (None, _) => {}
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n    help: {help}"),
            None => Ok(()),
        }
    }
}

/// A place in a `.proto` file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) file: String,
    /// Line and column, counted from 1. Descriptors may come without source positions.
    pub(crate) start: Option<(u32, u32)>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.start {
            Some((line, column)) => write!(f, "{}:{line}:{column}", self.file),
            None => f.write_str(&self.file),
        }
    }
}
