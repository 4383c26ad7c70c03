//! What the headers of a stream say of a session, which outlives the streams that carry it.

use std::fmt;

use http::HeaderMap;
use http::header::HeaderValue;

use super::instance::{hexadecimal, joined, read_hexadecimal};

/// The header by which a client asks for a session, and by which the server answers.
const HEADER: &str = "gorums-session";

/// A number that one session of a client at a node has, and no other one. Whoever knows it can go on
/// with the session, so it is as good as random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(u128);

impl fmt::Debug for SessionId {
    /// Without the number, which is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

impl SessionId {
    /// Of two random numbers. None where these are the same: then there is no randomness.
    pub(crate) fn new(high: u64, low: u64) -> Option<Self> {
        joined(high, low).map(Self)
    }
}

/// A number that one client has, and no other one: with it the ids of its calls name them for good.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientId(u128);

impl fmt::Debug for ClientId {
    /// Without the number, which is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientId(..)")
    }
}

impl ClientId {
    const HEADER: &str = "gorums-client";

    /// Of two random numbers. None where these are the same: then there is no randomness.
    pub(crate) fn new(high: u64, low: u64) -> Option<Self> {
        joined(high, low).map(Self)
    }

    pub(crate) fn number(self) -> u128 {
        self.0
    }

    /// What the client says. None where it says nothing, or something else.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(Self::HEADER)?.to_str().ok()?;
        read_hexadecimal(text).map(Self)
    }

    pub(crate) fn write(self, headers: &mut HeaderMap) {
        write(headers, Self::HEADER, hexadecimal(self.0));
    }
}

/// What a client asks for when it opens a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionRequest {
    pub(crate) id: SessionId,
    /// Which of the streams it is that ask for the session, by number. What an earlier one has sent may
    /// come later.
    pub(crate) stream: u64,
    /// How many replies of the session the client has, where it is to go on. None where it begins.
    pub(crate) received: Option<u64>,
}

impl SessionRequest {
    /// What the client asks for. None where it asks for no session.
    ///
    /// # Errors
    /// The text of a header that says something else.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Self>, String> {
        let Some(value) = headers.get(HEADER) else {
            return Ok(None);
        };
        let text = value.to_str().unwrap_or("what is no text");
        let read = || {
            let mut parts = text.split(';');
            let id = SessionId(read_hexadecimal(parts.next()?)?);
            let stream = read_number(parts.next()?)?;
            let received = match parts.next() {
                None => None,
                Some(number) => Some(read_number(number)?),
            };
            parts.next().is_none().then_some(Self {
                id,
                stream,
                received,
            })
        };
        read().map(Some).ok_or_else(|| text.to_owned())
    }

    pub(crate) fn write(self, headers: &mut HeaderMap) {
        let (id, stream) = (hexadecimal(self.id.0), self.stream);
        write(
            headers,
            HEADER,
            match self.received {
                None => format!("{id};{stream}"),
                Some(received) => format!("{id};{stream};{received}"),
            },
        );
    }
}

/// What the server makes of that. One that knows no sessions says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionAnswer {
    /// The session begins. If it was to go on, the server does not have it.
    Begun,
    /// The session goes on, of which the server has so many requests.
    Resumed { received: u64 },
}

impl SessionAnswer {
    const BEGUN: &str = "new";
    const RESUMED: &str = "resumed;";

    /// What the server says; none where it says nothing, or what no client knows.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(HEADER)?.to_str().ok()?;
        if text == Self::BEGUN {
            return Some(Self::Begun);
        }
        let received = read_number(text.strip_prefix(Self::RESUMED)?)?;
        Some(Self::Resumed { received })
    }

    pub(crate) fn write(self, headers: &mut HeaderMap) {
        write(
            headers,
            HEADER,
            match self {
                Self::Begun => Self::BEGUN.to_owned(),
                Self::Resumed { received } => format!("{}{received}", Self::RESUMED),
            },
        );
    }
}

/// Adds a header that is for nobody to see.
fn write(headers: &mut HeaderMap, name: &'static str, text: String) {
    let mut value = HeaderValue::try_from(text).expect("digits and letters are legal");
    value.set_sensitive(true);
    headers.insert(name, value);
}

fn read_number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_static(text));
        headers
    }

    #[test]
    fn what_is_asked_for_is_read_as_it_was_written_and_nothing_else_is() {
        let id = SessionId::new(1, 2).expect("they differ");
        for (received, text) in [
            (None, "00000000000000010000000000000002;7"),
            (Some(0), "00000000000000010000000000000002;7;0"),
            (
                Some(u64::MAX),
                "00000000000000010000000000000002;7;18446744073709551615",
            ),
        ] {
            let request = SessionRequest {
                id,
                stream: 7,
                received,
            };
            let mut headers = HeaderMap::new();
            request.write(&mut headers);
            assert_eq!(headers[HEADER], text);
            assert_eq!(SessionRequest::read(&headers), Ok(Some(request)));
        }
        assert_eq!(SessionRequest::read(&HeaderMap::new()), Ok(None));
        for text in [
            "",
            "1",
            "00000000000000010000000000000002",
            "00000000000000010000000000000002;",
            "00000000000000010000000000000002;1;",
            "00000000000000010000000000000002;1;1;1",
            "00000000000000010000000000000002;-1",
            "00000000000000010000000000000002;+1",
            "00000000000000010000000000000002;1;18446744073709551616",
            ";1",
        ] {
            let read = SessionRequest::read(&headers(text));
            assert_eq!(read, Err(text.to_owned()), "{text:?}");
        }
        assert_eq!(SessionId::new(7, 7), None);
    }

    #[test]
    fn a_client_is_read_as_it_was_written() {
        let client = ClientId::new(1, 2).expect("they differ");
        let mut headers = HeaderMap::new();
        assert_eq!(ClientId::read(&headers), None);
        client.write(&mut headers);
        assert_eq!(ClientId::read(&headers), Some(client));
        assert_eq!(client.number(), (1 << 64) + 2);
        headers.insert(ClientId::HEADER, HeaderValue::from_static("12"));
        assert_eq!(ClientId::read(&headers), None);
    }

    #[test]
    fn the_answer_is_read_as_it_was_written_and_nothing_else_is() {
        for answer in [
            SessionAnswer::Begun,
            SessionAnswer::Resumed { received: 0 },
            SessionAnswer::Resumed { received: u64::MAX },
        ] {
            let mut headers = HeaderMap::new();
            answer.write(&mut headers);
            assert_eq!(SessionAnswer::read(&headers), Some(answer));
        }
        assert_eq!(SessionAnswer::read(&HeaderMap::new()), None);
        for text in ["", "old", "resumed", "resumed;", "resumed;x", "new;1"] {
            assert_eq!(SessionAnswer::read(&headers(text)), None, "{text:?}");
        }
    }
}
