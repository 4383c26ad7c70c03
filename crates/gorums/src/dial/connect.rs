//! One attempt to connect, up to the request that opens the stream.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use http::Extensions;

use super::Serving;
use super::connected::{CLOSED_BY_PEER, Connected, explained};
use super::suspended::{Names, Suspended};
use crate::bounds::Bound;
use crate::channel::Channel;
use crate::error::Status;
use crate::runtime::Handshake;
use crate::stream::{
    FairIo, FirstBytes, Inbound, KeepAlive, Lasting, Link, NodeStream, Opening, Source, Timer,
    h2_status, noop_context,
};
use crate::wire::{Batch, H2Settings, TO, check_response_head, request_head};

/// An attempt that failed.
pub(super) struct Failed {
    pub(super) status: Status,
    /// There was a connection, which has ended.
    pub(super) reached: bool,
    pub(super) timed_out: bool,
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self {
            status,
            reached: false,
            timed_out: false,
        }
    }
}

/// A session that is to go on is asked for, and left where it is.
pub(super) async fn connect(
    channel: &Arc<Channel>,
    serving: &Serving,
    suspended: Option<&Suspended>,
    names: &mut Names,
) -> Result<Connected, Failed> {
    let pool = channel.pool();
    let limit = pool.settings.connect_timeout;
    // A session is not waited for longer than it may be.
    let left = |suspended: &Suspended| suspended.until() - pool.clock.now();
    let limit = suspended.map_or(limit, |suspended| limit.min(left(suspended)));
    let timeout = pool.clock.sleep_until(pool.clock.now() + limit);
    let closing = poll_fn(|cx| {
        channel.io().register(cx.waker());
        if channel.is_closing() && channel.outbox().is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    let reached = Reached::default();
    tokio::select! {
        biased;
        result = open(channel, serving, suspended, names, &reached) => result,
        () = closing => Err(Status::unavailable("the connection is closed").into()),
        () = timeout => {
            pool.reached.add(Bound::ConnectTimeout);
            let status = Status::unavailable(format!("no connection within {limit:?}"));
            Err(Failed {
                status: match (reached.stream.get(), reached.handshake.get()) {
                    (Some(first_bytes), _) => explained(status, first_bytes),
                    (None, Some(())) => Status::unavailable(format!(
                        "{}: the node did not finish the handshake, and may expect none",
                        status.message()
                    )),
                    (None, None) => status,
                },
                reached: false,
                timed_out: true,
            })
        }
    }
}

/// Whether the other end has proved to be the node that was dialled, where it has to.
fn check_node(channel: &Channel, proven: &Extensions) -> Result<(), Status> {
    let Some(proof) = &channel.pool().settings.node_proof else {
        return Ok(());
    };
    if channel.in_process().is_some() {
        return Ok(());
    }
    let found = match proof.node(proven)? {
        Some(id) if id == channel.id() => return Ok(()),
        Some(id) => format!("node {id}"),
        None => "no node".to_owned(),
    };
    Err(Status::permission_denied(format!(
        "the server at {} was connected to as node {}, and has proved to be {found}",
        channel.address(),
        channel.id()
    )))
}

/// How far an attempt has come.
#[derive(Default)]
struct Reached {
    /// There is a connection, and its handshake has begun.
    handshake: OnceLock<()>,
    /// There is a peer, which has said this since.
    stream: OnceLock<FirstBytes>,
}

async fn open(
    channel: &Arc<Channel>,
    serving: &Serving,
    suspended: Option<&Suspended>,
    names: &mut Names,
    reached: &Reached,
) -> Result<Connected, Failed> {
    let pool = channel.pool();
    let unavailable = |error: &dyn std::error::Error| Status::unavailable(error.to_string());
    let dial_epoch = channel.dial_epoch();
    // Behind the epoch: who serves from now on is set first, and the epoch changed then. The other
    // way round a connection could say that nobody serves, and never be replaced.
    let served = serving.get();
    let node_id = served.as_ref().map(|served| served.node_id);
    let mut request = request_head(channel.address(), &pool.metadata, node_id)?;
    // Who says which node it is numbers the nodes as the others do.
    let has_common_ids = channel.is_named() || node_id.is_some_and(|me| me != 0);
    if has_common_ids && !pool.settings.allow_other_ids {
        request.headers_mut().insert(TO, channel.id().get().into());
    }
    if let Some(instance) = served.as_ref().and_then(|served| served.instance) {
        instance.write(request.headers_mut());
    }
    let session = names.ask(channel, suspended, request.headers_mut());
    let io = match channel.in_process() {
        Some(in_process) => in_process.connect().await,
        None => pool.transport.connect(channel.address()).await,
    };
    let io = io.map_err(|error| unavailable(&error).with_source(error))?;
    // Of the stream, and not of the box around it.
    let peer_addr = (*io).peer_addr();
    channel.check_server(peer_addr)?;
    let has_handshake = Handshake::is_one(&io);
    if has_handshake {
        let _ = reached.handshake.set(());
    }
    let made = Handshake::made(io).await.map_err(|failed| {
        let error = io::Error::from(failed);
        Failed {
            status: unavailable(&error).with_source(error),
            reached: true,
            timed_out: false,
        }
    });
    let mut made = made?;
    let lasting = made.take_until().map(Lasting::new);
    let (io, proven) = made.into_parts();
    check_node(channel, &proven).map_err(|status| Failed {
        status,
        reached: true,
        timed_out: false,
    })?;
    let (io, first_bytes) = FairIo::remembering(io);
    if has_handshake {
        first_bytes.are_behind_a_handshake();
    }
    let _ = reached.stream.set(first_bytes.clone());
    let ended = |error: h2::Error| Failed {
        status: explained(h2_status(&error), &first_bytes),
        reached: true,
        timed_out: false,
    };
    let (send_request, mut connection) = H2Settings::client()
        .handshake::<FairIo, Batch>(io)
        .await
        .map_err(ended)?;
    let mut send_request = send_request.ready().await.map_err(ended)?;
    let (mut head, send) = send_request.send_request(request, false).map_err(ended)?;
    // Whatever accepts connections may have no server behind it. One of HTTP/2 says something by
    // itself; the answer to this request may be late, as that of Go's servers is.
    poll_fn(|cx| {
        let Poll::Ready(end) = Pin::new(&mut connection).poll(cx) else {
            return match first_bytes.have_a_head() {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            };
        };
        // An answer may have come together with the end, and says more.
        let answer = match Pin::new(&mut head).poll(&mut noop_context()) {
            Poll::Ready(Ok(response)) => check_response_head(&response).err(),
            _ => None,
        };
        Poll::Ready(Err(match (answer, end) {
            (Some(status), _) => Failed {
                status,
                reached: true,
                timed_out: false,
            },
            (None, Err(error)) => ended(error),
            (None, Ok(())) => Failed {
                status: explained(Status::unavailable(CLOSED_BY_PEER), &first_bytes),
                reached: true,
                timed_out: false,
            },
        }))
    })
    .await?;
    let clock = &pool.clock;
    let keep_alive = KeepAlive::new(
        pool.settings.keep_alive_interval,
        pool.settings.keep_alive_timeout,
        clock.now(),
    );
    let mut link = Link::new(connection.ping_pong(), keep_alive, Arc::clone(clock));
    if channel.is_refused() || suspended.is_some() {
        let until = clock.now() + pool.settings.connect_timeout;
        let until = suspended.map_or(until, |suspended| until.min(suspended.until()));
        link.timers.set(Timer::NoStream, until);
    }
    let is_called = served.as_ref().is_some_and(|served| match served.source {
        Source::Held(_) => true,
        Source::OfServer(_) => pool.settings.pairs.is_some() && channel.in_process().is_none(),
    });
    let inbound = Inbound::new(Opening::dialled(channel, served, proven));
    let mut stream = NodeStream::new(send, None, inbound);
    // One that is suspended is carried on where the node has it.
    stream.session = session;
    Ok(Connected {
        dial_epoch,
        first_bytes,
        peer_addr,
        connection,
        link,
        head: Some(head),
        stream,
        resumes: None,
        is_ended: false,
        is_refused_by_name: false,
        refused: None,
        gave_way: false,
        is_called,
        is_half_closed: false,
        has_answered: false,
        winding_down: None,
        lasting,
        ends_by_itself: false,
    })
}
