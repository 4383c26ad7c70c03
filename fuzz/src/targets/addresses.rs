use gorums::membership::NodeAddress;
use gorums::runtime::Address;

/// Text: an address is what it is written as, and so is a list of nodes.
pub(super) fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match text.parse::<Address>() {
        Ok(address) => assert_address(&address, &text),
        Err(error) => {
            assert_eq!(error.address(), text.trim());
            assert!(!error.reason().is_empty());
        }
    }
    let custom = Address::custom(text.clone());
    assert_eq!(custom.canonical(), text);
    if let Ok(nodes) = NodeAddress::list(&text) {
        assert_eq!(nodes.len(), 1 + text.matches(',').count());
        let written: Vec<_> = nodes.iter().map(NodeAddress::to_string).collect();
        let again = NodeAddress::list(&written.join(",")).expect("it was one");
        assert_eq!(again, nodes);
    }
}

fn assert_address(address: &Address, text: &str) {
    assert_eq!(address.as_str(), text.trim());
    let again: Address = address.to_string().parse().expect("it was one");
    assert_eq!(&again, address);
    let canonical = address.canonical();
    if canonical.ends_with(char::is_whitespace) {
        // A path that ends so is written with a slash behind it, which has gone.
        return;
    }
    // The path of a socket may be too long once it is absolute.
    match canonical.parse::<Address>() {
        Ok(again) => {
            assert_eq!(again.canonical(), canonical);
            assert_eq!(again.port(), address.port());
            let ip =
                |address: &Address| address.socket_addr().map(|found| found.ip().to_canonical());
            if ip(address).is_some() {
                assert_eq!(ip(&again), ip(address));
            }
        }
        Err(error) => assert!(canonical.starts_with("unix:"), "{error}"),
    }
}
