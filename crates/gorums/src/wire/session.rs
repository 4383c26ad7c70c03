//! What the headers of a stream say of a session, which outlives the streams that carry it.

use http::HeaderMap;
use http::header::HeaderValue;

use super::instance::{hexadecimal, read_hexadecimal};

/// The header by which a client asks for a session, and by which the server answers.
const HEADER: &str = "gorums-session";

/// A number that one session of a client at a node has, and no other one. Whoever knows it can go on
/// with the session, so it is as good as random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(u128);

impl SessionId {
    /// Of two random numbers. None where these are the same: then there is no randomness.
    pub(crate) fn new(high: u64, low: u64) -> Option<Self> {
        (high != low).then_some(Self(u128::from(high) << 64 | u128::from(low)))
    }
}

/// What a client asks for when it opens a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionRequest {
    pub(crate) id: SessionId,
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
            let (id, received) = match text.split_once(';') {
                None => (text, None),
                Some((id, received)) => (id, Some(received)),
            };
            Some(Self {
                id: SessionId(read_hexadecimal(id)?),
                received: match received {
                    None => None,
                    Some(number) => Some(read_number(number)?),
                },
            })
        };
        read().map(Some).ok_or_else(|| text.to_owned())
    }

    pub(crate) fn write(self, headers: &mut HeaderMap) {
        let id = hexadecimal(self.id.0);
        write(
            headers,
            match self.received {
                None => id,
                Some(received) => format!("{id};{received}"),
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
            match self {
                Self::Begun => Self::BEGUN.to_owned(),
                Self::Resumed { received } => format!("{}{received}", Self::RESUMED),
            },
        );
    }
}

fn write(headers: &mut HeaderMap, text: String) {
    let value = HeaderValue::try_from(text);
    headers.insert(HEADER, value.expect("digits and letters are legal"));
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
            (None, "00000000000000010000000000000002"),
            (Some(0), "00000000000000010000000000000002;0"),
            (
                Some(u64::MAX),
                "00000000000000010000000000000002;18446744073709551615",
            ),
        ] {
            let request = SessionRequest { id, received };
            let mut headers = HeaderMap::new();
            request.write(&mut headers);
            assert_eq!(headers[HEADER], text);
            assert_eq!(SessionRequest::read(&headers), Ok(Some(request)));
        }
        assert_eq!(SessionRequest::read(&HeaderMap::new()), Ok(None));
        for text in [
            "",
            "1",
            "00000000000000010000000000000002;",
            "00000000000000010000000000000002;-1",
            "00000000000000010000000000000002;+1",
            "00000000000000010000000000000002;18446744073709551616",
            ";1",
        ] {
            let read = SessionRequest::read(&headers(text));
            assert_eq!(read, Err(text.to_owned()), "{text:?}");
        }
        assert_eq!(SessionId::new(7, 7), None);
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
