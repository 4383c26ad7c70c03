//! Which server one is.

use http::HeaderMap;
use http::header::HeaderValue;

/// A number that one server has, and no other one: it tells whether two addresses lead to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Instance(u128);

impl Instance {
    /// The header that has it, in 32 hexadecimal digits.
    pub(crate) const HEADER: &str = "gorums-instance";

    /// Of two random numbers. None where these are the same: then there is no randomness, and every
    /// server would be the same one.
    pub(crate) fn new(high: u64, low: u64) -> Option<Self> {
        joined(high, low).map(Self)
    }

    /// What the peer says. None where it says nothing, or something else.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(Self::HEADER)?.to_str().ok()?;
        read_hexadecimal(text).map(Self)
    }

    pub(crate) fn write(self, headers: &mut HeaderMap) {
        let value = HeaderValue::try_from(hexadecimal(self.0));
        headers.insert(Self::HEADER, value.expect("digits are legal"));
    }
}

/// Two random numbers as one. None where these are the same: then there is no randomness.
pub(super) fn joined(high: u64, low: u64) -> Option<u128> {
    (high != low).then_some(u128::from(high) << 64 | u128::from(low))
}

/// A number of 128 bits in 32 hexadecimal digits.
pub(super) fn hexadecimal(number: u128) -> String {
    format!("{number:032x}")
}

/// The number that these digits are. None where they are no 32 hexadecimal ones.
pub(super) fn read_hexadecimal(digits: &str) -> Option<u128> {
    let is_hex = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u128::from_str_radix(digits, 16).ok().filter(|_| is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_nothing_else_is() {
        let mut headers = HeaderMap::new();
        assert_eq!(Instance::read(&headers), None);
        let instance = Instance::new(1, 2).expect("they differ");
        instance.write(&mut headers);
        assert_eq!(
            headers[Instance::HEADER],
            "00000000000000010000000000000002"
        );
        assert_eq!(Instance::read(&headers), Some(instance));
        for other in ["", "12", "+0000000000000010000000000000002", "x"] {
            headers.insert(Instance::HEADER, HeaderValue::from_static(other));
            assert_eq!(Instance::read(&headers), None, "{other:?}");
        }
        assert_eq!(Instance::new(7, 7), None);
    }
}
