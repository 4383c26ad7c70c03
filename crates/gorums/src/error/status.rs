use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use prost_types::Any;

use super::shown::shown;

macro_rules! codes {
    (
        $(#[$about:meta])*
        pub enum Code {
            $($(#[$doc:meta])* $code:ident = $number:literal, $text:literal $(, $make:ident)?;)*
        }
    ) => {
        $(#[$about])*
        pub enum Code {
            $($(#[$doc])* $code = $number,)*
        }

        impl Code {
            /// The code with this number; [`Code::Unknown`] for numbers that gRPC does not define.
            #[must_use]
            pub fn from_number(number: i32) -> Self {
                match number {
                    $($number => Self::$code,)*
                    _ => Self::Unknown,
                }
            }

            /// The number on the wire.
            #[must_use]
            pub fn number(self) -> i32 {
                self as i32
            }
        }

        impl fmt::Display for Code {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self {
                    $(Self::$code => $text,)*
                })
            }
        }

        impl Status {
            $($(
                #[doc = concat!("A status with [`Code::", stringify!($code), "`].")]
                #[must_use]
                pub fn $make(message: impl Into<String>) -> Self {
                    Self::new(Code::$code, message)
                }
            )?)*
        }
    };
}

codes! {
    /// The gRPC status codes, with their numbers on the wire.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum Code {
        /// Success. A [`Status`] with this code is not an error.
        Ok = 0, "ok";
        /// The operation was cancelled, usually by the caller.
        Cancelled = 1, "cancelled", cancelled;
        /// An error without a better code.
        Unknown = 2, "unknown", unknown;
        /// The request is wrong, whatever the state of the system.
        InvalidArgument = 3, "invalid argument", invalid_argument;
        /// The deadline passed before the operation ended.
        DeadlineExceeded = 4, "deadline exceeded", deadline_exceeded;
        /// What was asked for does not exist.
        NotFound = 5, "not found", not_found;
        /// What was to be created exists already.
        AlreadyExists = 6, "already exists", already_exists;
        /// The caller may not do this.
        PermissionDenied = 7, "permission denied", permission_denied;
        /// A bound was reached: a full queue, a quota, a size limit.
        ResourceExhausted = 8, "resource exhausted", resource_exhausted;
        /// The system is not in the state that the operation needs.
        FailedPrecondition = 9, "failed precondition", failed_precondition;
        /// The operation was aborted, typically by a conflict.
        Aborted = 10, "aborted", aborted;
        /// Past the valid range.
        OutOfRange = 11, "out of range", out_of_range;
        /// The method is not known here.
        Unimplemented = 12, "unimplemented", unimplemented;
        /// An invariant is broken: a defect.
        Internal = 13, "internal", internal;
        /// The service cannot be reached now; trying again may help.
        Unavailable = 14, "unavailable", unavailable;
        /// Data is lost or damaged for good.
        DataLoss = 15, "data loss", data_loss;
        /// The caller did not say who it is.
        Unauthenticated = 16, "unauthenticated", unauthenticated;
    }
}

/// What a handler answers with where it cannot answer with a reply: a gRPC code, a message for
/// people, and details for programs. One with [`Code::Ok`] says nothing of what went wrong: where
/// it stands for an error, callers get [`Code::Internal`], with its message.
///
/// Its text ([`Display`](fmt::Display)), also within that of other errors, is on one line: control
/// characters of the message, and those that turn the order of a text around, are escaped, since a
/// peer may have chosen them. [`message`](Self::message) is what was sent.
///
/// A status travels whole: code, message and details arrive as they were sent. The
/// [source](Status::with_source) stays in this process. One pointer wide; a clone is cheap.
#[derive(Clone)]
pub struct Status(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    code: Code,
    message: String,
    details: Vec<Any>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Status {
    /// A status with this code and message.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            code,
            message: message.into(),
            details: Vec::new(),
            source: None,
        }))
    }

    /// The same status with these details, which replace the ones it had.
    #[must_use]
    pub fn with_details(mut self, details: impl IntoIterator<Item = Any>) -> Self {
        Arc::make_mut(&mut self.0).details = details.into_iter().collect();
        self
    }

    /// The same status with the error that caused it. It is not sent to the caller.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::from(source.into()));
        self
    }

    /// The status to tell where this one stands for an error. One with the code of success is a
    /// mistake of the program, and would be taken for no error.
    pub(crate) fn as_error(&self) -> Cow<'_, Self> {
        if self.code() != Code::Ok {
            return Cow::Borrowed(self);
        }
        let text = format!("an error has the code of success: {self}");
        let mut status = self.clone();
        let inner = Arc::make_mut(&mut status.0);
        (inner.code, inner.message) = (Code::Internal, text);
        Cow::Owned(status)
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The message for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The details for programs.
    #[must_use]
    pub fn details(&self) -> &[Any] {
        &self.0.details
    }

    /// The same status with a hint when to come back: a `google.rpc.RetryInfo` among its
    /// [details](Self::details), in the place of the one that it had.
    ///
    /// A handler that answers with [`ResourceExhausted`](Code::ResourceExhausted) and this asks its
    /// caller for a pause: clients of this library send no further call of the method to its node
    /// before that. They take up to 10 s for what it says, and up to half as much more at random.
    #[must_use]
    pub fn with_retry_delay(self, delay: Duration) -> Self {
        let mut status = self.without_retry_delay();
        let info = RetryInfo {
            retry_delay: prost_types::Duration::try_from(delay).ok(),
        };
        Arc::make_mut(&mut status.0).details.push(Any {
            type_url: RETRY_INFO.to_owned(),
            value: info.encode_to_vec(),
        });
        status
    }

    /// When to come back, from now: what the first `google.rpc.RetryInfo` among the
    /// [details](Self::details) says. None where there is none, or what it says is no time to come.
    #[must_use]
    pub fn retry_delay(&self) -> Option<Duration> {
        let detail = self.details().iter().find(|detail| is_retry_info(detail))?;
        let info = RetryInfo::decode(&*detail.value).ok()?;
        info.retry_delay?.try_into().ok()
    }

    /// Without a hint when to come back.
    pub(crate) fn without_retry_delay(mut self) -> Self {
        if self.details().iter().any(is_retry_info) {
            let details = &mut Arc::make_mut(&mut self.0).details;
            details.retain(|detail| !is_retry_info(detail));
        }
        self
    }
}

/// The longest pause that an overloaded node asks for, and the longest that is taken from one, but for
/// what is added at random.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// Whatever the place is that its type is said to come from.
fn is_retry_info(detail: &Any) -> bool {
    detail.type_url.rsplit('/').next() == Some("google.rpc.RetryInfo")
}

/// `google.rpc.RetryInfo`, of `google/rpc/error_details.proto`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Status");
        debug
            .field("code", &self.0.code)
            .field("message", &self.0.message);
        if !self.0.details.is_empty() {
            debug.field("details", &self.0.details);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.code)?;
        if !self.0.message.is_empty() {
            write!(f, ": {}", shown(&self.0.message))?;
        }
        Ok(())
    }
}

impl Error for Status {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_their_numbers() {
        for number in 0..=16 {
            assert_eq!(Code::from_number(number).number(), number);
        }
        assert_eq!(Code::from_number(17), Code::Unknown);
        assert_eq!(Code::from_number(-1), Code::Unknown);
    }

    #[test]
    fn a_status_reads_as_code_and_message() {
        assert_eq!(
            Status::not_found("no such key").to_string(),
            "not found: no such key"
        );
        assert_eq!(Status::new(Code::Internal, "").to_string(), "internal");
    }

    #[test]
    fn its_text_is_one_line_and_its_message_is_what_was_sent() {
        let message = "gone\n2026-11-26 INFO all is well\0\u{202e}";
        let status = Status::aborted(message);
        let text = "aborted: gone\\n2026-11-26 INFO all is well\\u{0}\\u{202e}";
        assert_eq!(status.to_string(), text);
        assert_eq!(status.message(), message);
    }

    #[test]
    fn an_error_with_the_code_of_success_is_told_as_a_mistake() {
        let detail = Any {
            type_url: "a".to_owned(),
            value: vec![1],
        };
        let status = Status::new(Code::Ok, "done").with_details([detail]);
        let error = status.as_error();
        assert_eq!(error.code(), Code::Internal);
        assert_eq!(
            error.message(),
            "an error has the code of success: ok: done"
        );
        assert_eq!(error.details(), status.details());
        let status = Status::aborted("x");
        assert!(matches!(status.as_error(), Cow::Borrowed(_)));
    }

    #[test]
    fn a_source_is_kept_and_can_be_found() {
        let status = Status::internal("disk").with_source(std::io::Error::other("bad sector"));
        assert_eq!(
            status.source().expect("it was set").to_string(),
            "bad sector"
        );
    }

    #[test]
    fn a_hint_when_to_come_back_is_a_detail_of_the_field() {
        let other = Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
            value: vec![1],
        };
        let status = Status::resource_exhausted("busy").with_details([other.clone()]);
        assert_eq!(status.retry_delay(), None);
        let delay = Duration::from_millis(1_250);
        let hinted = status.clone().with_retry_delay(Duration::from_secs(9));
        let hinted = hinted.with_retry_delay(delay);
        assert_eq!(hinted.retry_delay(), Some(delay));
        // RetryInfo { retry_delay { seconds: 1, nanos: 250_000_000 } }
        let value = vec![0x0a, 7, 0x08, 1, 0x10, 0x80, 0xe5, 0x9a, 0x77];
        let info = Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value,
        };
        assert_eq!(hinted.details(), [other.clone(), info]);
        assert_eq!(hinted.without_retry_delay().details(), [other]);
        for value in [vec![0xff], Vec::new(), vec![0x0a, 2, 0x08, 0x80]] {
            let broken = Any {
                type_url: RETRY_INFO.to_owned(),
                value,
            };
            assert_eq!(status.clone().with_details([broken]).retry_delay(), None);
        }
        let longest = status.with_retry_delay(Duration::MAX);
        assert_eq!(longest.retry_delay(), None, "it is no time to come");
    }

    #[test]
    fn a_status_is_one_pointer_wide() {
        assert_eq!(size_of::<Status>(), size_of::<usize>());
    }
}
