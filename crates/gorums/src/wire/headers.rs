//! The HTTP/2 side: settings, and the headers and trailers of the stream.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

#[cfg(feature = "tower")]
use http::header::{CONNECTION, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};

use super::{NODE_ID, PATH};
use crate::error::{Code, Status, excerpt};
use crate::metadata::Metadata;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";
const FEATURES: &str = "gorums-features";
/// How many characters of a status are told in headers.
const LONGEST_MESSAGE: usize = 1024;

/// What a peer understands beyond the original protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Features {
    /// It acts on the frame by which a caller gives up.
    pub(crate) cancel: bool,
    /// It knows the frame that ends a streamed reply.
    pub(crate) stream_end: bool,
    /// It sends a streamed reply by credit, and gives credit for those to calls of its own.
    pub(crate) credit: bool,
    /// It wants to know which server it has reached.
    pub(crate) instance: bool,
    /// The ids of its calls say how they are to be answered.
    pub(crate) kind: bool,
    /// It says when it takes no further requests, or stops to send them where it is told so.
    pub(crate) going_away: bool,
    /// It takes the time that is left to the caller of a request, and says so of its own calls.
    pub(crate) deadline: bool,
}

impl Features {
    /// All that this version knows.
    const OURS: HeaderValue =
        HeaderValue::from_static("cancel,stream-end,credit,instance,kind,going-away,deadline");

    /// Their names, or `none`.
    pub(crate) fn names(self) -> String {
        let known = [
            (self.cancel, "cancel"),
            (self.stream_end, "stream-end"),
            (self.credit, "credit"),
            (self.instance, "instance"),
            (self.kind, "kind"),
            (self.going_away, "going-away"),
            (self.deadline, "deadline"),
        ];
        let names: Vec<_> = known
            .into_iter()
            .filter_map(|(is_known, name)| is_known.then_some(name))
            .collect();
        match names[..] {
            [] => "none".to_owned(),
            _ => names.join(","),
        }
    }

    /// What the peer announced. Names that this version does not know are ignored.
    pub(crate) fn announced(headers: &HeaderMap) -> Self {
        let mut features = Self::default();
        for value in headers.get_all(FEATURES) {
            for name in value.to_str().unwrap_or_default().split(',') {
                match name.trim() {
                    "cancel" => features.cancel = true,
                    "stream-end" => features.stream_end = true,
                    "credit" => features.credit = true,
                    "instance" => features.instance = true,
                    "kind" => features.kind = true,
                    "going-away" => features.going_away = true,
                    "deadline" => features.deadline = true,
                    _ => {}
                }
            }
        }
        features
    }
}

/// The HTTP/2 settings of both sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct H2Settings;

impl H2Settings {
    /// How many bytes may be on their way to us, unread, on the stream and on the connection.
    pub(crate) const WINDOW: u32 = 4 * 1024 * 1024;
    /// The largest DATA frame that we take: large frames cost less per byte.
    pub(crate) const FRAME: u32 = 1024 * 1024;
    /// `h2` closes a connection whose unread DATA frames are many and small: it counts what each is
    /// short of 256 bytes. A peer that sends a frame per message (as Go does) must be able to fill
    /// the window with the smallest messages there are, of some 16 bytes, while a handler is
    /// blocked.
    pub(crate) const FRAME_BUDGET: usize = Self::WINDOW as usize / 16 * 256;
    /// How many requests of a connection a server looks at at once. A client of Gorums has one; of
    /// other gRPC clients each call is one.
    pub(crate) const STREAMS: u32 = 100;
    /// How many bytes may be on their way over a connection within the process, unread in `h2`.
    #[cfg(feature = "tower")]
    pub(crate) const WITHIN_PROCESS: u32 = 256 * 1024;
    /// How many bytes of an answer `h2` takes before some are written, where whoever sends asks it how
    /// many it takes. The stream of Gorums has batches instead.
    pub(crate) const UNSENT: usize = 400 * 1024;
    /// The largest size of all headers of a request or a reply together.
    pub(crate) const HEADERS: u32 = 16 * 1024;

    pub(crate) fn client() -> h2::client::Builder {
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(Self::WINDOW)
            .initial_connection_window_size(Self::WINDOW)
            .max_frame_size(Self::FRAME)
            .data_frame_budget(Self::FRAME_BUDGET)
            .max_header_list_size(Self::HEADERS)
            .enable_push(false);
        builder
    }

    /// Of the client's end of a connection within the process, on which one request is made: there is
    /// no way to be filled, so that little needs to be on it.
    #[cfg(feature = "tower")]
    pub(crate) fn within_process() -> h2::client::Builder {
        let mut builder = Self::client();
        builder
            .initial_window_size(Self::WITHIN_PROCESS)
            .initial_connection_window_size(Self::WITHIN_PROCESS)
            .max_frame_size(Self::WITHIN_PROCESS)
            .max_send_buffer_size(Self::WITHIN_PROCESS as usize)
            .initial_max_send_streams(1);
        builder
    }

    pub(crate) fn server() -> h2::server::Builder {
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(Self::WINDOW)
            .initial_connection_window_size(Self::WINDOW)
            .max_frame_size(Self::FRAME)
            .data_frame_budget(Self::FRAME_BUDGET)
            .max_header_list_size(Self::HEADERS)
            .max_send_buffer_size(Self::UNSENT)
            .max_concurrent_streams(Self::STREAMS);
        builder
    }
}

/// The head of the request that opens a stream to this address. With an id the client can be called
/// back.
pub(crate) fn request_head(
    address: &str,
    metadata: &Metadata,
    node_id: Option<u32>,
) -> Result<Request<()>, Status> {
    // Not every address can stand there, that of a unix socket for one. gRPC then says this.
    let authority = address
        .parse()
        .unwrap_or_else(|_| Authority::from_static("localhost"));
    let uri = Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query(PATH)
        .build()
        .map_err(|e| Status::internal(format!("address {address:?}: {e}")))?;
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert("te", HeaderValue::from_static("trailers"));
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("gorums-rust/", env!("CARGO_PKG_VERSION"))),
    );
    headers.insert(FEATURES, Features::OURS);
    metadata.write_headers(headers)?;
    if let Some(node_id) = node_id {
        headers.insert(NODE_ID, node_id.into());
    }
    Ok(request)
}

/// The head of the reply to a call of ordinary gRPC.
pub(crate) fn grpc_head() -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    // gRPC wants this beside the refusal of a compressed message, which comes in the trailers.
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
    response
}

/// The head of the reply to a client of Gorums, which a server sends at once.
pub(crate) fn response_head() -> Response<()> {
    let mut response = grpc_head();
    response.headers_mut().insert(FEATURES, Features::OURS);
    response
}

/// How long the caller of ordinary gRPC waits, where it says so.
///
/// # Errors
/// It says something else.
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let bad = || {
        let value = excerpt(value.to_str().unwrap_or("what is no text"));
        Status::invalid_argument(format!("grpc-timeout: {value:?} is no time, such as 100m"))
    };
    let text = value.to_str().map_err(|_| bad())?;
    let (digits, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(bad)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let count: u64 = digits.parse().map_err(|_| bad())?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return Err(bad()),
    }))
}

/// A whole reply that only says why there is no stream.
pub(crate) fn trailers_only(status: &Status) -> Response<()> {
    // A client that sees our features knows that nothing was done. Other servers answer without them
    // at the end of a stream, too.
    let mut response = response_head();
    let status = status.as_error();
    let trailers = trailers(status.code(), status.message());
    response.headers_mut().extend(trailers);
    response
}

/// The trailers that end a stream.
pub(crate) fn trailers(code: Code, message: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(GRPC_STATUS, HeaderValue::from(code.number()));
    // All headers together are bounded at the other end, and what is encoded may be three times as long.
    let message = match message.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => &message[..end],
        None => message,
    };
    if let Ok(value) = HeaderValue::from_str(&percent_encoded(message))
        && !message.is_empty()
    {
        headers.insert(GRPC_MESSAGE, value);
    }
    headers
}

/// What the end of a stream says about the stream.
pub(crate) fn trailers_status(headers: &HeaderMap) -> Option<Status> {
    let code = headers.get(GRPC_STATUS)?;
    let number = code.to_str().ok().and_then(|text| text.parse().ok());
    let message = headers
        .get(GRPC_MESSAGE)
        .and_then(|value| value.to_str().ok())
        .map(percent_decoded)
        .unwrap_or_default();
    Some(Status::new(
        Code::from_number(number.unwrap_or(Code::Unknown.number())),
        message,
    ))
}

/// Why calls have no answer whose node has ended the stream with this status, perhaps within a
/// message. A status of success is no reason.
pub(crate) fn stream_ended(status: Option<Status>, cut: bool) -> Status {
    match status {
        Some(status) if status.code() != Code::Ok => status,
        _ if cut => Status::unavailable("the node ended the stream within a message"),
        _ => Status::unavailable("the node ended the stream"),
    }
}

/// Whether the server opened the stream.
pub(crate) fn check_response_head<T>(response: &Response<T>) -> Result<(), Status> {
    if let Some(status) = trailers_status(response.headers()) {
        return Err(stream_ended(Some(status), false));
    }
    let code = code_of_http(response.status());
    if response.status() != StatusCode::OK {
        let text = format!(
            "the peer answered with HTTP status {}: it does not serve Gorums",
            response.status()
        );
        return Err(Status::new(code, text));
    }
    if !is_grpc(response.headers()) {
        let text = "the peer's answer is not gRPC: it does not serve Gorums";
        return Err(Status::new(code, text));
    }
    Ok(())
}

/// Whether a node of this library has refused to open the stream, and so has done nothing. Of other
/// servers that is not known: Go's send no headers before the first reply, so a stream on which
/// they have done much may end in the same way.
pub(crate) fn is_turned_away<T>(response: &Response<T>) -> bool {
    let headers = response.headers();
    headers.contains_key(FEATURES)
        && trailers_status(headers).is_some_and(|status| status.code() != Code::Ok)
}

/// Whether HTTP/2 guarantees that the peer did nothing on a stream that ended with this error
/// before it was answered: the peer has refused the stream, or said that it looks only at earlier
/// ones.
pub(crate) fn is_unprocessed(error: &h2::Error) -> bool {
    // A GOAWAY does not end the streams up to the last one that it names.
    let is_above_last = error.is_go_away();
    let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (is_above_last || is_refused)
}

/// Whether what follows the headers is gRPC with protobuf messages.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value == b"application/grpc"
            || value.starts_with(b"application/grpc+proto")
            || value.starts_with(b"application/grpc;")
    })
}

/// The code that gRPC gives to a response without a status of its own.
fn code_of_http(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// The status of HTTP that says the same to a peer that does not speak gRPC.
pub(crate) fn http_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// Whether what follows the headers is gRPC of any kind, so that a status in trailers is understood.
/// That of browsers has its trailers elsewhere.
pub(crate) fn speaks_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let kind = value.as_bytes().strip_prefix(b"application/grpc");
        kind.is_some_and(|kind| !kind.starts_with(b"-web"))
    })
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..=31 | 127.. => {
                let _ = write!(encoded, "%{byte:02X}");
            }
            _ => encoded.push(char::from(byte)),
        }
    }
    encoded
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    match String::from_utf8_lossy(&bytes) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

/// Takes out the headers that are about one connection, and mean nothing on another one: all but `te`,
/// of which requests may have one.
#[cfg(feature = "tower")]
pub(crate) fn remove_headers_of_connection(headers: &mut HeaderMap) {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    // It may name others.
    let named: Vec<_> = headers.get_all(CONNECTION).into_iter().cloned().collect();
    for value in named {
        for name in value.to_str().unwrap_or_default().split(',') {
            headers.remove(name.trim());
        }
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::MAX_CONNECTION;
    use crate::wire::{Instance, TO};

    #[test]
    fn a_status_travels_in_trailers() {
        for message in ["", "plain", "50 % größer\nzwei"] {
            let headers = trailers(Code::Aborted, message);
            let status = trailers_status(&headers).expect("there is one");
            assert_eq!((status.code(), status.message()), (Code::Aborted, message));
        }
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%zz%4"), "%zz%4");
    }

    #[test]
    fn the_largest_metadata_and_the_longest_name_are_headers_that_a_server_takes() {
        let mut metadata = Metadata::new();
        let value = "x".repeat(MAX_CONNECTION - "key".len() - 32);
        metadata.append("key", value).expect("legal");
        let address = format!("{}:65535", "x".repeat(253));
        let mut request = request_head(&address, &metadata, Some(u32::MAX)).expect("legal");
        let instance = Instance::new(1, 2).expect("they differ");
        instance.write(request.headers_mut());
        request.headers_mut().insert(TO, u32::MAX.into());
        let pseudo = [
            (":method", request.method().as_str()),
            (":scheme", "http"),
            (":authority", &address),
            (":path", request.uri().path()),
        ];
        let pseudo = pseudo.iter().map(|(name, value)| name.len() + value.len());
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len());
        let size: usize = pseudo.chain(headers).map(|size| size + 32).sum();
        assert_eq!(
            request.uri().authority().expect("it was set").as_str(),
            address
        );
        assert!(size <= H2Settings::HEADERS as usize, "{size}");
    }

    #[test]
    fn features_are_read_by_name() {
        let mut headers = HeaderMap::new();
        assert_eq!(Features::announced(&headers), Features::default());
        headers.append(FEATURES, HeaderValue::from_static("time-travel, cancel"));
        assert!(Features::announced(&headers).cancel);
        assert!(!Features::announced(&headers).stream_end);
    }

    #[test]
    fn a_whole_reply_that_says_that_all_is_well_opens_no_stream_and_is_an_error() {
        let mut ended = Response::new(());
        *ended.headers_mut() = trailers(Code::Ok, "");
        ended.headers_mut().insert(CONTENT_TYPE, GRPC);
        let error = check_response_head(&ended).expect_err("no stream");
        assert_eq!(error.code(), Code::Unavailable);
        assert_eq!(error.message(), "the node ended the stream");
    }

    #[test]
    fn nobody_is_turned_away_with_the_code_of_success() {
        let refused = trailers_only(&Status::new(Code::Ok, "go away"));
        let error = check_response_head(&refused).expect_err("no stream");
        assert_eq!(error.code(), Code::Internal);
        assert!(error.message().contains("go away"), "{error}");
    }

    #[test]
    fn a_server_says_that_it_takes_no_compressed_messages() {
        let head = response_head();
        assert_eq!(head.headers()["grpc-accept-encoding"], "identity");
    }

    #[test]
    fn a_peer_that_speaks_grpc_is_told_a_status_in_trailers() {
        for (kind, speaks) in [
            ("application/grpc", true),
            ("application/grpc+json", true),
            ("application/grpc-web", false),
            ("application/grpc-web-text+proto", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            assert!(!speaks_grpc(&headers));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(speaks_grpc(&headers), speaks, "{kind}");
        }
        // Both ways of telling it agree on what was refused, and on whether trying again helps.
        for code in [
            Code::PermissionDenied,
            Code::Unauthenticated,
            Code::Unavailable,
        ] {
            assert_eq!(code_of_http(http_code(code)), code);
        }
    }

    #[test]
    fn a_peer_that_is_no_gorums_server_is_told_from_one() {
        assert!(check_response_head(&response_head()).is_ok());
        let mut html = Response::new(());
        assert!(check_response_head(&html).is_err());
        *html.status_mut() = StatusCode::NOT_FOUND;
        let error = check_response_head(&html).expect_err("no stream");
        assert!(error.message().contains("404"), "{error}");
        let refused = trailers_only(&Status::unimplemented("no such path"));
        let error = check_response_head(&refused).expect_err("no stream");
        assert_eq!(error.code(), Code::Unimplemented);
    }
}
