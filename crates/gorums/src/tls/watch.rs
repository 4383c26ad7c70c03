//! Looking at files again and again.

use std::sync::Weak;
use std::time::Duration;

use super::exchange::{
    Exchange, Look, Reminder, tell_expired, tell_outdated, tell_panicked, tell_refused,
};

/// How soon files that have changed are looked at again, where not sooner by the interval.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);

/// Looks after this until it is gone.
///
/// What the files have is compared, and not when they were written: a link that leads elsewhere, as
/// Kubernetes exchanges them, is a change like any other. What has changed is taken over when the
/// next look, a second later, sees the same: until then it may be half written.
pub(super) async fn run(watched: Weak<Exchange>, interval: Duration) {
    let mut before = None;
    let mut pause = interval;
    let (mut refusals, mut warnings) = (Reminder::default(), Reminder::default());
    loop {
        let Some(clock) = watched.upgrade().map(|exchange| exchange.clock().clone()) else {
            return;
        };
        clock.sleep_until(clock.now() + pause).await;
        let Some(exchange) = watched.upgrade() else {
            return;
        };
        // Whoever keeps the files may be far away.
        let last = before.take();
        let looking = tokio::task::spawn_blocking(move || {
            let look = exchange.look(last.as_ref());
            (exchange, look)
        });
        pause = interval;
        let (exchange, look) = match looking.await {
            Ok(looked) => looked,
            Err(error) if error.is_panic() => {
                tell_panicked();
                continue;
            }
            // The runtime ends.
            Err(_) => return,
        };
        before = match look {
            Look::Same => {
                refusals.forget();
                None
            }
            Look::Different(seen) => {
                pause = SETTLE.min(interval);
                Some(seen)
            }
            Look::Exchanged(exchanged) => {
                refusals.forget();
                exchanged.tell(&*clock);
                // Told just now.
                warnings.is_due("", clock.now());
                None
            }
            Look::Refused(seen, reason) => {
                let is_told = refusals.is_due(&reason, clock.now());
                tell_refused(&exchange.present(), &reason, is_told);
                Some(seen)
            }
        };
        if warnings.is_due("", clock.now()) {
            let present = exchange.present();
            tell_outdated(&present, &*clock);
            tell_expired(&present, &*clock);
        }
    }
}
