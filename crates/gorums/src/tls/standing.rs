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

/// Completes when a peer with this chain of certificates would not be taken any more: one of them has
/// expired, or what has been exchanged since makes it so.
pub(super) async fn until_refused(
    mut present: watch::Receiver<Arc<Material>>,
    chain: Vec<CertificateDer<'static>>,
    clock: Arc<dyn Clock>,
    is_taken: impl Fn(&Material, &[CertificateDer<'_>], SystemTime) -> bool,
) {
    let end = validity::end(chain.iter().map(|der| &der[..])).unwrap_or(i64::MAX);
    let mut is_final = false;
    loop {
        let wall = clock.wall_clock();
        let left = end.saturating_sub(validity::seconds(wall));
        // The last second is one of those in which it is valid, and clocks may be set meanwhile.
        let left = Duration::from_secs(left.try_into().unwrap_or(0)) + Duration::from_secs(1);
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
