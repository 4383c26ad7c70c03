//! The task of a node: it connects, and connects again when the connection is lost.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::Serving;
use super::connect::{Failed, connect};
use super::connected::End;
use super::reconnect::Reconnect;
use super::suspended::{Names, Suspended};
use super::winding_down::WindingDown;
use crate::channel::{Channel, NodeState};
use crate::error::{Outcome, Status};
use crate::log;
use crate::runtime::BoxFuture;
use crate::stream::Fired;
use crate::wire::Side;

/// Keeps a node until its last handle is dropped, and connected where it does not connect itself.
pub(crate) fn run(channel: Arc<Channel>, serving: Arc<Serving>) -> BoxFuture<'static, ()> {
    if channel.side() == Side::Server {
        return Box::pin(keep(channel));
    }
    let closed = channel.end_on_drop();
    Box::pin(async move {
        let _closed = closed;
        keep_connected(&channel, &serving).await;
        tracing::debug!(
            target: log::CLIENT,
            node = channel.id().get(),
            address = %channel.address(),
            "closed: nobody holds the node any more"
        );
    })
}

async fn keep_connected(channel: &Arc<Channel>, serving: &Serving) {
    let clock = Arc::clone(&channel.pool().clock);
    let mut reconnect = Reconnect::new(&channel.pool().settings, clock.now());
    let mut is_failing = false;
    let mut winding_down = WindingDown::default();
    let mut suspended: Option<Suspended> = None;
    let mut names = Names::default();
    let mut is_first = true;
    loop {
        if !std::mem::take(&mut is_first) {
            let until = suspended.as_ref().map(Suspended::until);
            let pause = pause(channel, &reconnect, until);
            if winding_down.beside(channel, pause).await.is_break() {
                winding_down.finish(channel).await;
                return;
            }
        }
        if let Some(expired) = suspended.take_if(|session| session.until() <= clock.now()) {
            expired.expire(channel);
        }
        channel.set_state(NodeState::Connecting);
        tracing::debug!(
            target: log::CLIENT,
            node = channel.id().get(),
            address = %channel.address(),
            "connecting"
        );
        reconnect.started(clock.now());
        channel.outbox().begin_attempt();
        match winding_down
            .beside(
                channel,
                connect(channel, serving, suspended.as_ref(), &mut names),
            )
            .await
        {
            Ok(mut connected) => {
                connected.resumes = suspended.take();
                let since = clock.now();
                channel.set_state(NodeState::Connected);
                let serving = poll_fn(|cx| connected.poll(cx, channel));
                let end = winding_down.beside(channel, serving).await;
                if connected.has_answered {
                    reconnect.proven();
                }
                if connected.is_refused_by_name || matches!(end, End::Outdated) {
                    names.renew();
                }
                let written = connected.known_of_requests();
                let was_open = connected.is_open();
                let has_answered = connected.has_answered;
                // The node answers the end of this side of the stream by ending its own.
                let was_ended = connected.is_half_closed;
                let is_dead = matches!(end, End::Dead);
                let is_outdated = matches!(end, End::Outdated);
                let is_broken = matches!(end, End::Lost(_) | End::Dead);
                let status = match end {
                    End::Closed => {
                        connected.give_back(channel);
                        winding_down.finish(channel).await;
                        return;
                    }
                    End::GoingAway | End::Unproven => {
                        names.renew();
                        let now = clock.now();
                        reconnect.lost(now, now - since, clock.random());
                        is_failing = false;
                        let is_unproven = matches!(end, End::Unproven);
                        let why = if is_unproven {
                            winding_down.end(connected, channel);
                            tell_unproven(channel, now - since);
                            "what was proven of the node holds no more"
                        } else {
                            winding_down.begin(connected, channel);
                            tell_going_away(channel, now - since);
                            "the node takes no more requests on this connection"
                        };
                        let status = Status::unavailable(why);
                        channel.set_last_error(Some(status.clone()));
                        channel.set_state(NodeState::Disconnected);
                        // What is not written waits for the next connection, whose handshake fails it
                        // where the node is refused by then. A node that only ever goes away, and has
                        // answered nothing, fails what the connection was made for.
                        if !is_unproven && !has_answered {
                            let failed = channel.outbox().fail_attempt();
                            Channel::fail_unwritten(failed, Outcome::NotSent, &status);
                        }
                        continue;
                    }
                    End::Lost(status) => connected.explained(status),
                    End::Dead => Status::unavailable(Fired::DEAD),
                    End::Outdated => Status::unavailable(
                        "the connection was made before this process became a peer",
                    ),
                };
                if is_broken {
                    match connected.suspend(channel) {
                        Ok(session) => suspended = Some(session),
                        Err(connected) => connected.give_back(channel),
                    }
                } else {
                    connected.give_back(channel);
                }
                let now = clock.now();
                reconnect.lost(now, now - since, clock.random());
                let pause = reconnect.next(false).saturating_duration_since(now);
                if was_ended {
                    // All was written, and the end of the node's task is told.
                } else if is_outdated {
                    tell_outdated(channel, now - since);
                } else if is_dead {
                    tell_silence(channel, now - since, pause);
                } else if written == Outcome::Refused {
                    tell_refusal(channel, &status, pause);
                } else if was_open {
                    tell_loss(channel, &status, now - since, pause);
                } else {
                    tell_failure(channel, &status, is_failing, pause);
                }
                is_failing = !was_open && !is_outdated;
                channel.set_last_error(Some(status.clone()));
                channel.set_state(NodeState::Disconnected);
                // What this connection was made for has had its attempt; the rest waits for the
                // next.
                let failed = if channel.is_refused() {
                    channel.outbox().drain()
                } else {
                    channel.outbox().fail_attempt()
                };
                // Where the node has refused the stream, it has refused these as well.
                let unwritten = match written {
                    Outcome::Refused => Outcome::Refused,
                    Outcome::NotSent | Outcome::Unknown => Outcome::NotSent,
                };
                // What is written again comes before all that is left in the outbox.
                if suspended.is_none() {
                    channel.fail_written(written, &status);
                }
                Channel::fail_unwritten(failed, unwritten, &status);
            }
            Err(Failed {
                status,
                reached,
                timed_out,
            }) => {
                if reached {
                    reconnect.lost(clock.now(), Duration::ZERO, clock.random());
                } else {
                    reconnect.failed(clock.now(), clock.random());
                }
                // Else it is this end that gave it up.
                if !channel.is_closing() {
                    let pause = reconnect.next(false).saturating_duration_since(clock.now());
                    tell_failure(channel, &status, is_failing, pause);
                    is_failing = true;
                }
                channel.set_last_error(Some(status.clone()));
                channel.set_state(NodeState::Disconnected);
                // A call that came during an attempt that was refused at once may have come after
                // the server did: it gets an attempt of its own. One that has waited for a silent
                // peer has waited enough.
                let failed = {
                    let mut outbox = channel.outbox();
                    if timed_out {
                        outbox.begin_attempt();
                    }
                    outbox.fail_attempt()
                };
                Channel::fail_unwritten(failed, Outcome::NotSent, &status);
            }
        }
    }
}

/// The connection is gone; the next attempt comes after a pause, or when a call asks for it.
fn tell_loss(channel: &Channel, status: &Status, lasted: Duration, pause: Duration) {
    let admission = channel.admit_event();
    log::event!(
        admission.is_told => info or debug,
        target: log::CLIENT,
        node = channel.id().get(),
        address = %channel.address(),
        error = %log::text(status),
        lasted_ms = log::millis(lasted),
        retry_ms = log::millis(pause),
        left_out = admission.left_out,
        "lost"
    );
}

/// The same, where the node answers no more.
fn tell_silence(channel: &Channel, lasted: Duration, pause: Duration) {
    let admission = channel.admit_event();
    log::event!(
        admission.is_told => warn or debug,
        target: log::CLIENT,
        node = channel.id().get(),
        address = %channel.address(),
        lasted_ms = log::millis(lasted),
        retry_ms = log::millis(pause),
        left_out = admission.left_out,
        "lost: the node does not answer"
    );
}

/// This end gives the connection up for one that tells the node more.
fn tell_outdated(channel: &Channel, lasted: Duration) {
    tracing::debug!(
        target: log::CLIENT,
        node = channel.id().get(),
        address = %channel.address(),
        lasted_ms = log::millis(lasted),
        "connecting anew: the node is to know that this process is a peer"
    );
}

/// The node takes no more requests, and answers those that it has.
fn tell_going_away(channel: &Channel, lasted: Duration) {
    let admission = channel.admit_event();
    log::event!(
        admission.is_told => info or debug,
        target: log::CLIENT,
        node = channel.id().get(),
        address = %channel.address(),
        calls = channel.pending(),
        lasted_ms = log::millis(lasted),
        left_out = admission.left_out,
        "the node goes away, or has the connection made anew"
    );
}

/// The node would not be taken for what it is any more, by what it has shown.
fn tell_unproven(channel: &Channel, lasted: Duration) {
    let admission = channel.admit_event();
    log::event!(
        admission.is_told => info or debug,
        target: log::CLIENT,
        node = channel.id().get(),
        address = %channel.address(),
        calls = channel.pending(),
        lasted_ms = log::millis(lasted),
        left_out = admission.left_out,
        "connecting anew: what was proven of the node holds no more"
    );
}

/// The node has turned this client away.
fn tell_refusal(channel: &Channel, status: &Status, pause: Duration) {
    let admission = channel.admit_event();
    log::event!(
        admission.is_told => warn or debug,
        target: log::CLIENT,
        node = channel.id().get(),
        address = %channel.address(),
        error = %log::text(status),
        retry_ms = log::millis(pause),
        left_out = admission.left_out,
        "refused by the node"
    );
}

/// There is no connection. Of attempts that fail one after the other the first is told.
fn tell_failure(channel: &Channel, status: &Status, is_failing: bool, pause: Duration) {
    let admission = (!is_failing).then(|| channel.admit_event());
    log::event!(
        admission.is_some_and(|admission| admission.is_told) => info or debug,
        target: log::CLIENT,
        node = channel.id().get(),
        address = %channel.address(),
        error = %log::text(status),
        retry_ms = log::millis(pause),
        left_out = admission.and_then(|admission| admission.left_out),
        "cannot connect"
    );
}

/// Keeps a node that opens its streams itself, until its last handle is dropped.
fn keep(channel: Arc<Channel>) -> impl Future<Output = ()> + Send {
    let closed = channel.end_on_drop();
    async move {
        let _closed = closed;
        while !channel.is_closing() {
            channel.detached().notified().await;
        }
        // What is queued is still written, for a while.
        let pool = channel.pool();
        let mut linger = pool
            .clock
            .sleep_until(pool.clock.now() + pool.settings.linger);
        while channel.state() == NodeState::Connected {
            tokio::select! {
                biased;
                () = channel.detached().notified() => {}
                () = &mut linger => return,
            }
        }
    }
}

/// Waits until the next attempt is due, or a call asks for one, and no longer than until this time
/// where there is one. Break where the channel is closed.
async fn pause(
    channel: &Arc<Channel>,
    reconnect: &Reconnect,
    until: Option<Instant>,
) -> std::ops::ControlFlow<()> {
    let clock = &channel.pool().clock;
    let dial_epoch = channel.dial_epoch();
    loop {
        let demanded = !channel.outbox().is_empty();
        if channel.is_closing() {
            return std::ops::ControlFlow::Break(());
        }
        let at = reconnect.next(demanded);
        let at = until.map_or(at, |until| until.min(at));
        if at <= clock.now() || dial_epoch != channel.dial_epoch() {
            return std::ops::ControlFlow::Continue(());
        }
        let mut sleep = clock.sleep_until(at);
        poll_fn(|cx| {
            channel.io().register(cx.waker());
            if channel.is_closing()
                || channel.outbox().is_empty() == demanded
                || dial_epoch != channel.dial_epoch()
            {
                return Poll::Ready(());
            }
            sleep.as_mut().poll(cx)
        })
        .await;
    }
}
