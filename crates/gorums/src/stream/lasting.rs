use std::task::{Context, Poll};
use std::time::Duration;

use super::poll_flag::PollFlag;
use crate::runtime::BoxFuture;

/// How long what was proven of a peer holds. A connection that is busy asks this often, which
/// costs next to nothing where nothing has happened.
pub(crate) struct Lasting {
    until: BoxFuture<'static, ()>,
    flag: PollFlag,
}

impl Lasting {
    pub(crate) fn new(until: BoxFuture<'static, ()>) -> Self {
        Self {
            until,
            flag: PollFlag::default(),
        }
    }

    /// Ready, once, when it holds no more.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.flag.register(cx.waker());
        if self.flag.take() {
            self.until.as_mut().poll(&mut self.flag.context())
        } else {
            Poll::Pending
        }
    }
}

/// Between 90 % and 100 % of a duration, so that connections that came together do not go together.
pub(crate) fn shortened(duration: Duration, random: u64) -> Duration {
    let unit = (random >> 11) as f64 / (1_u64 << 53) as f64;
    duration.mul_f64(0.9 + 0.1 * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_up_to_a_tenth_shorter() {
        let age = Duration::from_secs(100);
        let of = |random| shortened(age, random).as_millis();
        assert_eq!(of(0), 90_000);
        assert_eq!(of(1 << 63), 95_000);
        assert!((99_999..=100_000).contains(&of(u64::MAX)));
    }

    #[tokio::test]
    async fn it_is_asked_only_when_it_was_woken() {
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let mut polls = 0;
        let mut ended = Box::pin(ended);
        let mut lasting = Lasting::new(Box::pin(std::future::poll_fn(move |cx| {
            polls += 1;
            assert!(polls <= 2, "for nothing");
            ended.as_mut().poll(cx).map(|_| ())
        })));
        for _ in 0..10 {
            let polled = std::future::poll_fn(|cx| Poll::Ready(lasting.poll_end(cx))).await;
            assert!(polled.is_pending());
        }
        end.send(()).expect("it is waited for");
        std::future::poll_fn(|cx| lasting.poll_end(cx)).await;
    }
}
