//! Whether docs/limits.md says what the code does.

use crate::bounds::Bound;
use crate::channel::{METHODS, NEWEST, RESENDS, Settings, WINDOW, WINDOWS_WITHOUT_CREDIT};
use crate::configuration::{MOST, REMEMBERED};
use crate::error::LONGEST_PAUSE;
use crate::log;
use crate::metadata::{MAX_CONNECTION, MAX_ENTRIES};
use crate::server::accept::Server;
use crate::wire::{BATCH_BYTES, H2Settings, MAX_DETAILS};

/// What the page states for a bound.
fn stated(what: &str) -> &'static str {
    stated_for("# Limits", what)
}

/// What the page states for a bound, first below a heading.
fn stated_for(heading: &str, what: &str) -> &'static str {
    let page = include_str!("../../../docs/limits.md");
    let below = page.lines().skip_while(|line| *line != heading);
    let mut rows = below.filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        (cells.next()? == what).then(|| cells.next())?
    });
    let stated = rows.next();
    stated.unwrap_or_else(|| panic!("the page does not name {what:?}"))
}

/// A number as the page writes it.
fn count(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
    groups
        .iter()
        .map(|group| String::from_utf8_lossy(group).into_owned())
        .collect::<Vec<_>>()
        .join(",")
}

fn bytes(number: usize) -> String {
    match number {
        number if number.is_multiple_of(1 << 20) => format!("{} MiB", number >> 20),
        number => format!("{} KiB", number >> 10),
    }
}

#[test]
fn the_page_states_the_defaults_of_a_client() {
    let settings = Settings::default();
    let seconds = |duration: std::time::Duration| format!("{} s", duration.as_secs_f64());
    for (what, value) in [
        (
            "requests in the outbox of a node",
            count(settings.outbox_messages),
        ),
        (
            "bytes in the outbox of a node",
            bytes(settings.outbox_bytes),
        ),
        (
            "calls that wait for replies, on all nodes of a pool together",
            count(settings.max_calls),
        ),
        (
            "size of a reply, envelope included",
            bytes(settings.max_decoding_message_size),
        ),
        (
            "replies of a node to a streamed call that nobody takes",
            bytes(WINDOW as usize),
        ),
        (
            "the same, of a node that knows no credit",
            bytes((WINDOW * WINDOWS_WITHOUT_CREDIT) as usize),
        ),
        (
            "replies of a node to a correctable that nobody takes",
            format!("{NEWEST}, and {}", bytes(WINDOW as usize)),
        ),
        (
            "the same, of all streamed calls at a node",
            bytes(settings.unread_replies as usize),
        ),
        ("entries of metadata in a request", count(MAX_ENTRIES)),
        ("entries of metadata in a reply", count(MAX_ENTRIES)),
        ("metadata of a connection", bytes(MAX_CONNECTION)),
        ("details of a status", count(MAX_DETAILS)),
        ("nodes of a membership", count(MOST)),
        (
            "nodes that have left a membership and keep their ids",
            count(REMEMBERED),
        ),
        (
            "time that a node may be behind the others with an answer",
            seconds(settings.degraded_after),
        ),
        ("one batch with `h2`", bytes(BATCH_BYTES)),
        ("an attempt to connect", seconds(settings.connect_timeout)),
        (
            "a node that owes an answer, and answers nothing",
            format!(
                "{}, then {} for a ping",
                seconds(settings.keep_alive_interval),
                seconds(settings.keep_alive_timeout)
            ),
        ),
        (
            "lines of the log above DEBUG that a node can cause, and of each kind that the clients of \
             a server can",
            format!("{} in {}", log::LINES, seconds(log::WINDOW)),
        ),
        (
            "text of a peer in a line of the log",
            format!("{} characters", log::CHARS),
        ),
        (
            "time that a client waits then for the answers to what it has called",
            seconds(crate::dial::OVERDUE),
        ),
        (
            "the same, where the node may call the client over the connection (`serve`, \
             `one_stream_per_pair`), or winds it down itself",
            format!("{}, in which it goes on", seconds(crate::dial::OVERDUE)),
        ),
        (
            "writing after the last handle is dropped",
            seconds(settings.linger),
        ),
    ] {
        assert_eq!(stated(what), value, "{what}");
    }
    let methods = stated("methods of a node that a pause is known of");
    assert_eq!(methods, count(METHODS));
    let pause = stated("pause that an overloaded node asks for");
    let longest = format!("{} at the most", seconds(LONGEST_PAUSE));
    assert!(pause.starts_with(&longest), "{pause}");
    let tries = stated("times that a request without a deadline is tried again");
    assert!(tries.starts_with(&format!("{RESENDS},")), "{tries}");
}

#[test]
fn the_page_states_the_defaults_of_a_server() {
    let builder = Server::builder();
    let [connections, unsettled, per_node, running] = builder.counts();
    let [waiting, replies, request, buffered] = builder.sizes();
    for (what, value) in [
        ("connections", count(connections)),
        (
            "those of them that do not speak HTTP/2 yet, or are in a handshake",
            count(unsettled),
        ),
        (
            "those of one node that has proved which one it is",
            count(per_node),
        ),
        (
            "bytes that are kept for all connections together: requests that have not started, parts of \
             others, and replies that are not written",
            bytes(buffered),
        ),
        ("released handlers of a connection that run", count(running)),
        (
            "replies of a connection that are not written",
            bytes(replies),
        ),
        ("payload of a request", bytes(request)),
    ] {
        assert_eq!(stated_for("## Server", what), value, "{what}");
    }
    let seconds = |duration: std::time::Duration| format!("{} s", duration.as_secs());
    let grace = stated(
        "time that a connection takes to wind down while the server goes on, because it is old or \
         what its client had proved holds no more",
    );
    assert_eq!(grace, seconds(crate::server::builder::GRACE));
    let kept = stated(
        "time that the [session](calls.md#sessions) of a client without a connection is kept",
    );
    assert_eq!(kept, seconds(crate::server::sessions::TIMEOUT));
    let parked = stated("sessions of clients without a connection");
    assert_eq!(parked, count(crate::server::sessions::PARKED));
    let kept = stated("bytes of answers that the client of a session has not said to have");
    let least = bytes(crate::stream::LEAST_KEPT);
    assert_eq!(kept, format!("{}, {least} at least", bytes(replies)));
    let slow = stated(
        "time for the next 64 KiB of a message that a client has begun, and of what is written to it",
    );
    assert_eq!(slow, seconds(crate::server::builder::SLOW_PEER));
    let per_address = stated("the same, from one address (of IPv6: from one network of 64 bits)");
    let expected = count(builder.per_address());
    assert!(
        per_address.starts_with(&format!("{expected}:")),
        "{per_address}"
    );
    let stated = stated("requests of a connection that were read and not started");
    assert!(
        stated.starts_with(&format!("{},", bytes(waiting))),
        "{stated}"
    );
}

#[cfg(feature = "tls")]
#[test]
fn the_page_states_the_bounds_of_certificates() {
    use crate::tls;

    let seconds = |duration: std::time::Duration| format!("{} s", duration.as_secs());
    let file = stated("bytes of a file of certificates, of a key or of revocation lists");
    assert_eq!(file, bytes(tls::LARGEST as usize));
    let looks = stated("time between two looks at files of certificates");
    assert!(looks.starts_with(&seconds(tls::RELOAD_INTERVAL)), "{looks}");
    let settles = format!("stayed the same for {},", seconds(tls::SETTLE));
    assert!(looks.contains(&settles), "{looks}");
    let spread = stated("time until a connection winds down whose peer would be refused by now");
    assert!(spread.starts_with(&seconds(tls::SPREAD)), "{spread}");
}

#[test]
fn the_page_states_the_bounds_of_http_2() {
    let window = bytes(H2Settings::WINDOW as usize);
    assert!(stated("bytes on their way that nobody has read").starts_with(&window));
    let budget = bytes(H2Settings::FRAME_BUDGET);
    assert!(stated("overhead of small DATA frames that are unread").starts_with(&budget));
    assert_eq!(stated("one frame"), bytes(H2Settings::FRAME as usize));
    assert_eq!(stated("headers"), bytes(H2Settings::HEADERS as usize));
    #[cfg(feature = "tower")]
    {
        let mounted = stated(
            "a mounted server (`into_service`): bytes of a request and of its response between the \
             server around it and this one",
        );
        let within = bytes(H2Settings::WITHIN_PROCESS as usize);
        assert!(
            mounted.starts_with(&format!("{within} in each")),
            "{mounted}"
        );
        assert_eq!(crate::runtime::PIPE, H2Settings::WITHIN_PROCESS as usize);
    }
    let unsent = stated("bytes of an answer of the service that wait to be written");
    let expected = format!("{}, and", bytes(H2Settings::UNSENT));
    assert!(unsent.starts_with(&expected), "{unsent}");
    let unread = stated("bytes of such requests that the service has not read");
    assert!(unread.starts_with(&window), "{unread}");
    let calls = stated("calls of an ordinary gRPC client on one connection");
    assert_eq!(calls, count(H2Settings::STREAMS as usize));
}

/// Each bound is named where the page says how it is watched.
#[test]
fn the_page_names_what_counts_how_often_each_bound_was_reached() {
    let heading = "## How often bounds are reached";
    for bound in Bound::ALL {
        let stated = stated_for(heading, &format!("`{bound:?}`"));
        assert!(!stated.is_empty(), "{bound:?}");
    }
}
