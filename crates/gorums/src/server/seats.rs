//! How many connections there may be from each address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::sync::Mutex;

/// The connections that there are, by where they come from.
pub(super) struct Seats {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// For each address.
    limit: usize,
}

/// What a connection holds while it counts.
pub(super) struct Seat {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    from: IpAddr,
}

/// As many connections come from an address as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) from: IpAddr,
}

impl Seats {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            taken: Arc::default(),
            limit,
        }
    }

    /// A seat for a connection from this address; none where it has none, as that of a unix socket.
    pub(super) fn take(&self, peer: Option<SocketAddr>) -> Result<Option<Seat>, Full> {
        let Some(peer) = peer else {
            return Ok(None);
        };
        let from = origin(peer.ip());
        let mut taken = self.taken.lock();
        let count = taken.entry(from).or_default();
        if *count >= self.limit {
            return Err(Full { from });
        }
        *count += 1;
        Ok(Some(Seat {
            taken: Arc::clone(&self.taken),
            from,
        }))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.taken.lock().entry(self.from) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// What is one origin: an address of IPv4, also where it is written as one of IPv6, and of IPv6 the
/// network that one host has at the least, of 64 bits.
fn origin(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let network = ip.to_bits() >> 64 << 64;
            Ipv6Addr::from_bits(network).into()
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(ip: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(ip.parse().expect("an address"), 1))
    }

    #[test]
    fn each_address_has_its_seats_and_gets_them_back() {
        let seats = Seats::new(2);
        let take = |ip| seats.take(from(ip));
        let first = take("10.0.0.1").expect("there is room");
        let _second = take("::ffff:10.0.0.1").expect("there is room");
        let full = take("10.0.0.1").err().expect("there is none");
        assert_eq!(full.from, IpAddr::from([10, 0, 0, 1]));
        let _other = take("10.0.0.2").expect("another address");
        drop(first);
        let _third = take("10.0.0.1").expect("one has gone");
        assert!(take("10.0.0.1").is_err());
        let one = take("2001:db8::1").expect("there is room");
        let two = take("2001:db8::2:3").expect("there is room");
        assert!(take("2001:db8::ffff:1").is_err(), "the same network");
        take("2001:db8:0:1::1").expect("another network");
        drop((one, two));
        assert_eq!(seats.taken.lock().len(), 2);
        for _ in 0..10 {
            assert!(seats.take(None).expect("without an address").is_none());
        }
    }
}
