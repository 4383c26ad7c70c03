use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::input::Input;
use crate::error::Code;
use crate::metadata::{MAX_CONNECTION, Metadata};
use crate::wire::{
    Features, Instance, check_response_head, grpc_timeout, http_code, is_grpc, is_turned_away,
    request_head, speaks_grpc, stream_ended, trailers, trailers_only, trailers_status,
};

/// Headers of a peer, one in a line, name and value with a colon between them: what is read of them
/// is written so that it is read again as it was.
pub fn headers(input: &[u8]) {
    let mut input = Input(input);
    let status = input.one_of(&[200, 200, 302, 400, 401, 403, 404, 429, 500, 502, 503, 504]);
    let status = StatusCode::from_u16(status).expect("three digits");
    let headers = read(input.rest());

    let features = Features::announced(&headers);
    let mut again = HeaderMap::new();
    let names = HeaderValue::try_from(features.names()).expect("names");
    again.insert("gorums-features", names);
    assert_eq!(Features::announced(&again), features);

    if let Some(instance) = Instance::read(&headers) {
        let mut again = HeaderMap::new();
        instance.write(&mut again);
        assert_eq!(Instance::read(&again), Some(instance));
    }

    if let Err(error) = grpc_timeout(&headers) {
        assert!(error.message().starts_with("grpc-timeout: "), "{error}");
    }
    if is_grpc(&headers) {
        assert!(speaks_grpc(&headers));
    }
    statuses(&headers, status);
    metadata(&headers);
}

/// Those of these lines that can be headers.
fn read(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':');
        let Some((name, [_, value @ ..])) = colon.map(|colon| line.split_at(colon)) else {
            continue;
        };
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_bytes(value);
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// What the peer says of a stream.
fn statuses(headers: &HeaderMap, http: StatusCode) {
    let status = trailers_status(headers);
    let mut response = Response::new(());
    *response.status_mut() = http;
    *response.headers_mut() = headers.clone();
    match check_response_head(&response) {
        Ok(()) => {
            assert!(status.is_none() && http == StatusCode::OK && is_grpc(headers));
            assert!(!is_turned_away(&response));
        }
        Err(error) => assert_ne!(error.code(), Code::Ok),
    }
    let cut = http.as_u16() & 4 == 0;
    assert_ne!(stream_ended(status.clone(), cut).code(), Code::Ok);

    let Some(status) = status else {
        assert!(!is_turned_away(&response));
        return;
    };
    let _ = http_code(status.code());
    let told = trailers(status.code(), status.message());
    let again = trailers_status(&told).expect("it was told");
    assert_eq!(again.code(), status.code());
    assert!(
        status.message().starts_with(again.message()),
        "{:?} is told as {:?}",
        status.message(),
        again.message()
    );
    if status.message().chars().count() <= 1024 {
        assert_eq!(again.message(), status.message());
    }
    let refused = trailers_only(&status);
    assert!(is_turned_away(&refused));
    check_response_head(&refused).expect_err("there is no stream");
}

/// What is sent along, of a request and of a connection.
fn metadata(headers: &HeaderMap) {
    let received = Metadata::from_headers(headers);
    assert!(received.len() <= headers.len());
    for (key, value) in received.iter() {
        assert!(received.get(&key.to_ascii_uppercase()).is_some());
        assert!(received.get_all(key).any(|other| other == value));
    }
    let mut own = Metadata::new();
    for (key, value) in received.iter() {
        match own.append(key, value) {
            Ok(()) => assert_eq!(own.get_all(key).last(), Some(value)),
            Err(error) => assert!(error.message().contains("metadata"), "{error}"),
        }
    }
    let mut sent = HeaderMap::new();
    match own.write_headers(&mut sent) {
        Ok(()) => {
            let again = Metadata::from_headers(&sent);
            for (key, _) in own.iter() {
                assert!(again.get_all(key).eq(own.get_all(key)), "{key}");
            }
            let size = own.iter().map(|(key, value)| key.len() + value.len() + 32);
            assert!(size.sum::<usize>() <= MAX_CONNECTION);
            // Whatever is an address here: it is text that the user wrote.
            let address = own.get("address").unwrap_or_default();
            let request = request_head(address, &own, Some(7)).expect("it is legal");
            let ours = request.headers();
            assert_eq!(Features::announced(ours).names(), ours["gorums-features"]);
        }
        Err(error) => assert!(error.message().starts_with("metadata "), "{error}"),
    }
    #[cfg(feature = "tower")]
    {
        let mut left = headers.clone();
        crate::wire::remove_headers_of_connection(&mut left);
        assert!(!left.contains_key("connection") && !left.contains_key("transfer-encoding"));
        assert!(left.len() <= headers.len());
    }
}
