//! How addresses are written, and when two of them are one.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How many bytes the path of a unix socket has at most.
const LONGEST_PATH: usize = if cfg!(any(target_os = "linux", target_os = "android")) {
    107
} else {
    103
};

/// Where a node is reached or a server listens: `host:port`, `unix:/path`, or what else a
/// [`Transport`](super::Transport) takes.
///
/// ```
/// use gorums::runtime::Address;
///
/// let address: Address = "[0:0::1]:08080".parse()?;
/// assert_eq!(address.to_string(), "[0:0::1]:08080");
/// assert_eq!(address.canonical(), "[::1]:8080");
/// assert_eq!(address.port(), Some(8080));
/// # Ok::<_, gorums::runtime::AddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    text: String,
    place: Place,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Place {
    /// A name, or an address without the brackets.
    Host {
        host: String,
        port: u16,
    },
    /// An abstract name begins with a zero byte.
    Unix(PathBuf),
    Other,
}

impl Address {
    /// An address in a form of its own, which only the transport understands that reads it. Two of
    /// them are compared as text.
    #[must_use]
    pub fn custom(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            place: Place::Other,
        }
    }

    /// As it was written, without blanks around it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The port, where it has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.host_and_port().map(|(_, port)| port)
    }

    /// The IP address and port, where it has these and no name.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let (host, port) = self.host_and_port()?;
        match host.parse::<IpAddr>() {
            Ok(ip) => Some((ip, port).into()),
            // With the number of an interface behind it.
            Err(_) => self.text.parse().ok(),
        }
    }

    /// The form in which addresses are compared: two that have the same one lead to the same place.
    /// Two that have different ones may do so, too, as names do.
    ///
    /// Hosts are in lower case and without a dot at their end, `localhost` is 127.0.0.1, IP
    /// addresses are in their shortest form, IPv4 addresses within IPv6 are IPv4 addresses, and
    /// ports have no leading zeros. Paths are absolute, and their folders without symbolic links as
    /// far as they exist. The last part stays as it is even where it is a link, so that the form is
    /// the same before and after a server listens there.
    #[must_use]
    pub fn canonical(&self) -> String {
        match &self.place {
            Place::Other => self.text.clone(),
            Place::Host { host, port } => match self.socket_addr() {
                Some(address) => canonical_ip(address).to_string(),
                None => {
                    if let Some((ip, interface)) = scoped(host) {
                        return format!("[{ip}%{interface}]:{port}");
                    }
                    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
                    match host.as_str() {
                        "localhost" => format!("{}:{port}", Ipv4Addr::LOCALHOST),
                        _ => format!("{host}:{port}"),
                    }
                }
            },
            Place::Unix(path) => match path.to_str() {
                Some(name) if name.starts_with('\0') => self.text.clone(),
                _ => format!("unix:{}", without_links(path).display()),
            },
        }
    }

    /// The host, without brackets, and the port.
    pub(crate) fn host_and_port(&self) -> Option<(&str, u16)> {
        match &self.place {
            Place::Host { host, port } => Some((host, *port)),
            Place::Unix(_) | Place::Other => None,
        }
    }

    /// The path of a unix socket, with a zero byte before an abstract name.
    pub(crate) fn unix_path(&self) -> Option<&Path> {
        match &self.place {
            Place::Unix(path) => Some(path),
            Place::Host { .. } | Place::Other => None,
        }
    }

    /// Whether it can be connected to. What is listened on may have port 0.
    pub(crate) fn check_connectable(&self) -> Result<(), AddressError> {
        match self.port() {
            Some(0) => Err(AddressError::new(
                &self.text,
                "port 0 cannot be connected to",
            )),
            _ => Ok(()),
        }
    }

    fn unix(text: &str, path: &str) -> Result<Self, AddressError> {
        let bad = |reason: String| Err(AddressError::new(text, reason));
        // As gRPC writes it, with an authority that is empty.
        let path = match path.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            Some(_) => return bad("a unix socket has no host: write unix:/path".to_owned()),
            None => path,
        };
        if cfg!(not(unix)) {
            return bad("this system has no unix sockets".to_owned());
        }
        if path.is_empty() || path == "@" {
            return bad("there is no path; expected unix:/path".to_owned());
        }
        if path.contains('\0') {
            return bad("a path has no zero byte".to_owned());
        }
        if path.len() > LONGEST_PATH {
            return bad(format!(
                "the path has {} bytes, and that of a unix socket has {LONGEST_PATH} at most",
                path.len()
            ));
        }
        let path = match path.strip_prefix('@') {
            Some(_) if cfg!(not(any(target_os = "linux", target_os = "android"))) => {
                return bad("this system has no abstract names: write unix:/path".to_owned());
            }
            Some(name) => PathBuf::from(format!("\0{name}")),
            None => PathBuf::from(path),
        };
        Ok(Self {
            text: text.to_owned(),
            place: Place::Unix(path),
        })
    }

    fn host(text: &str) -> Result<Self, AddressError> {
        let bad = |reason: String| Err(AddressError::new(text, reason));
        if let Some((_, rest)) = text.split_once("://") {
            let rest = rest.split('/').next().unwrap_or_default();
            return bad(match rest {
                "" => format!("an address has no scheme; {EXPECTED}"),
                _ if rest.contains(':') => format!("an address has no scheme: write {rest}"),
                _ => format!("an address has no scheme, and a port: write {rest}:port"),
            });
        }
        if text.contains(',') {
            return bad("these are several addresses: give each by itself".to_owned());
        }
        if text.contains('=') {
            return bad("an id is not part of an address: give 1=host:port to \
                 ConfigurationBuilder::addresses, or both to ConfigurationBuilder::node"
                .to_owned());
        }
        if let Some((_, rest)) = text.split_once('@') {
            return bad(format!(
                "the name of a user is not part of an address: write {rest}"
            ));
        }
        if text.is_empty() {
            return bad(format!("it is empty; {EXPECTED}"));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return bad(format!("there is no port; {EXPECTED}"));
        };
        if text.starts_with('[') && text.ends_with(']') || port.is_empty() {
            return bad(format!("there is no port; {EXPECTED}"));
        }
        if host.is_empty() {
            return bad(format!("there is no host; {EXPECTED}"));
        }
        if let Some((port, _)) = port.split_once('/') {
            return bad(format!("nothing follows the port: write {host}:{port}"));
        }
        if host.starts_with('[') && !host.ends_with(']') {
            return bad("a closing ] comes between an IPv6 address and its port".to_owned());
        }
        let number = port.bytes().all(|byte| byte.is_ascii_digit());
        let Some(number) = port.parse().ok().filter(|_| number) else {
            // An address that ends in a group of it, and has no port, may look like this.
            if host.contains(':') && !host.starts_with('[') {
                return bad(IN_BRACKETS.to_owned());
            }
            return bad(format!("the port {port:?} is not a number from 1 to 65535"));
        };
        let host = match host.strip_prefix('[') {
            Some(v6) => {
                let v6 = v6.trim_end_matches(']');
                let (ip, interface) = v6
                    .split_once('%')
                    .map_or((v6, None), |(ip, interface)| (ip, Some(interface)));
                let Ok(parsed) = ip.parse::<Ipv6Addr>() else {
                    return bad(format!("{ip:?} is not an IPv6 address"));
                };
                if let Some(interface) = interface
                    && let Err(reason) = check_interface(parsed, interface)
                {
                    return bad(reason);
                }
                v6
            }
            None if host.contains(':') => return bad(IN_BRACKETS.to_owned()),
            None => {
                let of_names = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
                if let Some(other) = host.chars().find(|c| !of_names(*c)) {
                    return bad(format!(
                        "the host has the character {other:?}, which no host name has"
                    ));
                }
                // A name does not end in a number: what does is meant to be an address, of which
                // there are forms that only some systems read, and read differently.
                let name = host.strip_suffix('.').unwrap_or(host);
                let last = name.rsplit('.').next().unwrap_or(name);
                if last.is_empty() {
                    return bad(format!("there is no host; {EXPECTED}"));
                }
                let is_number =
                    last.len() < name.len() && last.bytes().all(|byte| byte.is_ascii_digit());
                if is_number && host.parse::<Ipv4Addr>().is_err() {
                    return bad(format!("{host:?} is not an IPv4 address"));
                }
                host
            }
        };
        Ok(Self {
            text: text.to_owned(),
            place: Place::Host {
                host: host.to_owned(),
                port: number,
            },
        })
    }
}

/// An IPv6 address and the interface that is named behind it.
fn scoped(host: &str) -> Option<(Ipv6Addr, &str)> {
    let (ip, interface) = host.split_once('%')?;
    Some((ip.parse().ok()?, interface))
}

/// Whether an address may have this interface. Which one a name stands for, only the system knows,
/// which looks it up at each attempt to connect.
fn check_interface(ip: Ipv6Addr, interface: &str) -> Result<(), String> {
    if !interface.is_empty() && interface.bytes().all(|byte| byte.is_ascii_digit()) {
        return match interface.parse::<u32>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!(
                "{interface} is more than the number of an interface can be"
            )),
        };
    }
    if interface.is_empty() {
        return Err("there is no interface behind %, as in [fe80::1%eth0]:8080".to_owned());
    }
    let of_names = |char: char| char.is_ascii_graphic() && !"%/[]".contains(char);
    if let Some(other) = interface.chars().find(|char| !of_names(*char)) {
        return Err(format!(
            "the interface has the character {other:?}, which no name of one has"
        ));
    }
    if !ip.is_unicast_link_local() {
        return Err(format!(
            "an interface is part of a link-local address, as fe80::1%{interface} is: write [{ip}]"
        ));
    }
    Ok(())
}

const EXPECTED: &str = "expected host:port or unix:/path";
const IN_BRACKETS: &str = "an IPv6 address is written in brackets, as in [::1]:8080";

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `host:port` and `unix:/path`; blanks around it do not matter.
    ///
    /// A host is a name, an IPv4 address or, in brackets, an IPv6 address. A path may be relative
    /// to the folder that the program runs in. `unix:@name` is an abstract name, which Linux has.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        // Schemes have no case, and no host is called so.
        match text.split_at_checked("unix:".len()) {
            Some((scheme, path)) if scheme.eq_ignore_ascii_case("unix:") => Self::unix(text, path),
            _ => Self::host(text),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self {
            text: address.to_string(),
            place: Place::Host {
                host: address.ip().to_string(),
                port: address.port(),
            },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError {
    address: String,
    reason: String,
}

impl AddressError {
    /// This text is no address, for this reason.
    pub fn new(address: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            reason: reason.into(),
        }
    }

    /// The text.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What is wrong with it.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {:?}: {}", self.address, self.reason)
    }
}

impl Error for AddressError {}

/// An IPv4 address within IPv6 is an IPv4 address.
pub(crate) fn canonical_ip(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        // An interface, if there is one, makes a difference.
        IpAddr::V6(_) => address,
        v4 => (v4, address.port()).into(),
    }
}

/// The same path, without symbolic links in as much of its folder as exists. What the path itself
/// leads to may come, go, and be replaced, and counts for nothing.
fn without_links(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for folder in path.ancestors().skip(1) {
        if let (Ok(real), Ok(rest)) = (folder.canonicalize(), path.strip_prefix(folder)) {
            return real.join(rest);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        let address: Address = text.parse().expect(text);
        address.canonical()
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_to_do() {
        let expected = "expected host:port or unix:/path";
        for (text, reason) in [
            ("", format!("it is empty; {expected}")),
            ("   ", format!("it is empty; {expected}")),
            ("a", format!("there is no port; {expected}")),
            ("a:", format!("there is no port; {expected}")),
            ("[::1]", format!("there is no port; {expected}")),
            (":1", format!("there is no host; {expected}")),
            (".:1", format!("there is no host; {expected}")),
            (
                "a:x",
                "the port \"x\" is not a number from 1 to 65535".into(),
            ),
            (
                "a:65536",
                "the port \"65536\" is not a number from 1 to 65535".into(),
            ),
            (
                "a:70000",
                "the port \"70000\" is not a number from 1 to 65535".into(),
            ),
            (
                "a:-1",
                "the port \"-1\" is not a number from 1 to 65535".into(),
            ),
            (
                "a:+80",
                "the port \"+80\" is not a number from 1 to 65535".into(),
            ),
            (
                "a: 80",
                "the port \" 80\" is not a number from 1 to 65535".into(),
            ),
            (
                "::1:80",
                "an IPv6 address is written in brackets, as in [::1]:8080".into(),
            ),
            (
                "fe80::abcd",
                "an IPv6 address is written in brackets, as in [::1]:8080".into(),
            ),
            (
                "[::1:80",
                "a closing ] comes between an IPv6 address and its port".into(),
            ),
            (
                "[::1]80",
                "a closing ] comes between an IPv6 address and its port".into(),
            ),
            ("[::g]:80", "\"::g\" is not an IPv6 address".into()),
            (
                "[127.0.0.1]:80",
                "\"127.0.0.1\" is not an IPv6 address".into(),
            ),
            (
                "[fe80::1%]:80",
                "there is no interface behind %, as in [fe80::1%eth0]:8080".into(),
            ),
            (
                "[fe80::1%e 0]:80",
                "the interface has the character ' ', which no name of one has".into(),
            ),
            (
                "[fe80::1%eth0%1]:80",
                "the interface has the character '%', which no name of one has".into(),
            ),
            (
                "[fe80::1%4294967296]:80",
                "4294967296 is more than the number of an interface can be".into(),
            ),
            (
                "[0::1%lo]:80",
                "an interface is part of a link-local address, as fe80::1%lo is: write [::1]"
                    .into(),
            ),
            ("127.1:80", "\"127.1\" is not an IPv4 address".into()),
            (
                "256.0.0.1:80",
                "\"256.0.0.1\" is not an IPv4 address".into(),
            ),
            (
                "127.0.0.01:80",
                "\"127.0.0.01\" is not an IPv4 address".into(),
            ),
            (
                "http://localhost:7101",
                "an address has no scheme: write localhost:7101".into(),
            ),
            (
                "https://[::1]:7101/x",
                "an address has no scheme: write [::1]:7101".into(),
            ),
            (
                "http://localhost",
                "an address has no scheme, and a port: write localhost:port".into(),
            ),
            ("dns:///", format!("an address has no scheme; {expected}")),
            (
                "user@host:80",
                "the name of a user is not part of an address: write host:80".into(),
            ),
            (
                "host:80/path",
                "nothing follows the port: write host:80".into(),
            ),
            (
                "host/path:80",
                "the host has the character '/', which no host name has".into(),
            ),
            (
                "a b:80",
                "the host has the character ' ', which no host name has".into(),
            ),
            (
                "a\tb:80",
                "the host has the character '\\t', which no host name has".into(),
            ),
            (
                "größe:80",
                "the host has the character 'ö', which no host name has".into(),
            ),
            (
                "a:1, b:2",
                "these are several addresses: give each by itself".into(),
            ),
            (
                "1=host:80",
                "an id is not part of an address: give 1=host:port to \
                 ConfigurationBuilder::addresses, or both to ConfigurationBuilder::node"
                    .into(),
            ),
        ] {
            let error = text.parse::<Address>().expect_err(text);
            assert_eq!(error.reason(), reason, "{text:?}");
            let text = text.trim();
            assert_eq!(error.to_string(), format!("address {text:?}: {reason}"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_unix_socket_is_refused_with_what_to_do() {
        let long = format!("unix:/{}", "x".repeat(200));
        for (text, reason) in [
            ("unix:", "there is no path; expected unix:/path".to_owned()),
            ("unix:@", "there is no path; expected unix:/path".to_owned()),
            (
                "unix://host/a",
                "a unix socket has no host: write unix:/path".to_owned(),
            ),
            ("unix:/a\0b", "a path has no zero byte".to_owned()),
            (
                &long,
                format!(
                    "the path has 201 bytes, and that of a unix socket has {LONGEST_PATH} at most"
                ),
            ),
        ] {
            let error = text.parse::<Address>().expect_err(text);
            assert_eq!(error.reason(), reason, "{text:?}");
        }
    }

    #[test]
    fn port_0_is_for_listening() {
        let address: Address = " localhost:0 ".parse().expect("legal");
        assert_eq!(address.as_str(), "localhost:0");
        let error = address.check_connectable().expect_err("port 0");
        assert_eq!(
            error.to_string(),
            "address \"localhost:0\": port 0 cannot be connected to"
        );
    }

    #[test]
    fn spellings_of_one_address_are_compared_as_one() {
        for (one, spellings) in [
            (
                "[::1]:7201",
                &["[0:0:0:0:0:0:0:1]:7201", "[::0001]:07201", "[::1]:007201"][..],
            ),
            (
                "127.0.0.1:80",
                &[
                    "localhost:80",
                    "LocalHost.:080",
                    "[::ffff:127.0.0.1]:80",
                    "[::FFFF:7f00:1]:80",
                ],
            ),
            (
                "example.com:1",
                &["EXAMPLE.com:1", "example.com.:1", " example.com:01"],
            ),
            ("[fe80::1%3]:80", &["[FE80:0::1%3]:80"]),
            ("[fe80::1%Eth0]:80", &["[FE80:0::1%Eth0]:080"]),
            ("[2001:db8::a]:80", &["[2001:DB8:0:0::A]:80"]),
        ] {
            assert_eq!(canonical(one), one);
            for spelling in spellings {
                assert_eq!(canonical(spelling), one, "{spelling:?}");
            }
        }
        for (one, other) in [
            ("[::1]:80", "127.0.0.1:80"),
            ("a:80", "a:81"),
            ("[fe80::1%3]:80", "[fe80::1%4]:80"),
            ("[fe80::1%eth0]:80", "[fe80::1%Eth0]:80"),
        ] {
            assert_ne!(canonical(one), canonical(other));
        }
    }

    #[cfg(unix)]
    #[test]
    fn paths_are_compared_without_links_where_they_exist() {
        let dir = std::env::temp_dir().join(format!("gorums-paths-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("real")).expect("a folder for the test");
        let _ = std::fs::remove_file(dir.join("link"));
        std::os::unix::fs::symlink(dir.join("real"), dir.join("link")).expect("a link");
        let at = |path: &str| canonical(&format!("unix:{}/{path}", dir.display()));
        assert_eq!(at("real/a"), at("link/a"));
        assert_eq!(at("real/a"), at("real/../real//a"));
        assert_ne!(at("real/a"), at("real/b"));
        let before = at("real/b");
        std::os::unix::fs::symlink(dir.join("real/a"), dir.join("real/b")).expect("a link");
        std::fs::write(dir.join("real/a"), "").expect("where the link leads");
        assert_eq!(at("real/b"), before);
        assert_eq!(canonical("unix:///a/b"), canonical("unix:/a/b"));
        let before = at("link/none/a");
        assert_eq!(before, at("real/none/a"));
        std::fs::create_dir(dir.join("real/none")).expect("a folder");
        assert_eq!(at("link/none/a"), before);
        std::fs::remove_dir_all(&dir).expect("the folder was made above");
    }
}
