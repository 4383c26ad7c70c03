//! Connections whose peers would be refused by now.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::material::Material;
use super::validity;
use crate::runtime::{Clock, bounded};

/// Within which connections end that end for the same reason, so that not all come back at once.
pub(crate) const SPREAD: Duration = Duration::from_secs(5);

/// Completes when a peer with this chain of certificates would not be taken any more: one of them that
/// is needed has expired, or what has been exchanged since makes it so.
pub(super) async fn until_refused(
    mut present: watch::Receiver<Arc<Material>>,
    chain: Vec<CertificateDer<'static>>,
    clock: Arc<dyn Clock>,
    is_taken: impl Fn(&Material, &[CertificateDer<'_>], SystemTime) -> bool,
) {
    let ends = validity::ends(chain.iter().map(|der| &der[..]));
    let mut is_final = false;
    loop {
        let left = until_next_end(&ends, clock.wall_clock());
        let expiry = clock.sleep_until(clock.now() + bounded(left));
        tokio::select! {
            biased;
            // Nobody exchanges anything any more where the last handle is gone.
            changed = present.changed(), if !is_final => is_final = changed.is_err(),
            () = expiry => {}
        }
        let material = Arc::clone(&present.borrow_and_update());
        if !is_taken(&material, &chain, clock.wall_clock()) {
            break;
        }
    }
    let millis = SPREAD.as_millis() as u64;
    let delay = Duration::from_millis(clock.random() % (millis + 1));
    clock.sleep_until(clock.now() + delay).await;
}

/// How long it is until the next one of these certificates expires, whose last seconds these are. Of
/// those that have expired already nobody has needed any, or the peer would not be here.
fn until_next_end(ends: &[i64], now: SystemTime) -> Duration {
    let now = validity::seconds(now);
    let later = ends.iter().filter(|end| **end >= now);
    later.min().map_or(Duration::MAX, |end| {
        // The last second is one of those in which it is valid, and clocks may be set meanwhile.
        let left = end.saturating_sub(now).saturating_add(1);
        Duration::from_secs(left.unsigned_abs())
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn the_next_certificate_to_expire_is_waited_for() {
        let left = |ends: &[i64], now| {
            let now = UNIX_EPOCH + Duration::from_secs(now);
            until_next_end(ends, now)
        };
        let seconds = Duration::from_secs;
        assert_eq!(left(&[100, 200], 0), seconds(101));
        assert_eq!(left(&[200, 100], 100), seconds(1));
        assert_eq!(left(&[100, 200], 101), seconds(100));
        // Nothing is left that could expire.
        assert_eq!(left(&[100, 200], 201), Duration::MAX);
        assert_eq!(left(&[], 0), Duration::MAX);
        assert_eq!(left(&[i64::MAX], 0), seconds(i64::MAX as u64));
    }
}
