//! Which runtimes connections can be driven by, and what holds where another one waits for a call.

mod common;

use std::time::Duration;

use common::{Number, echo, number, within};
use gorums::{Client, Code, Configuration, ConfigurationError, Outcome, ServerError};
use tokio::runtime::{Builder, Runtime};

const ECHO: &str = "test.Test.Echo";

fn without_timers() -> Runtime {
    let runtime = Builder::new_current_thread().enable_io().build();
    runtime.expect("a runtime")
}

fn without_io() -> Runtime {
    let runtime = Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime")
}

#[test]
fn a_runtime_that_lacks_something_is_refused_by_name() {
    for (runtime, expected) in [
        (
            without_timers(),
            "the tokio runtime has no timers: build it with enable_time(), or with enable_all()",
        ),
        (
            without_io(),
            "the tokio runtime has no I/O: build it with enable_io(), or with enable_all()",
        ),
    ] {
        runtime.block_on(async {
            let connected = Configuration::builder().nodes(["127.0.0.1:9"]).connect();
            let error = connected.expect_err("it cannot be driven");
            assert!(matches!(error, ConfigurationError::Runtime { .. }));
            assert_eq!(error.to_string(), expected);
            let bound = echo().bind("127.0.0.1:0").await;
            let error = bound.expect_err("it cannot be driven");
            assert!(matches!(error, ServerError::Runtime(_)));
            assert_eq!(error.to_string(), expected);
        });
    }
}

#[test]
fn a_membership_that_is_changed_in_such_a_runtime_stays_as_it_was() {
    let all = Builder::new_current_thread().enable_all().build();
    let all = all.expect("a runtime");
    let _inside = all.enter();
    let members = Configuration::builder()
        .nodes(["127.0.0.1:9"])
        .membership()
        .expect("legal");
    let error = without_timers().block_on(async {
        members.set(["127.0.0.1:9", "127.0.0.1:10"].map(|at| at.parse().expect("legal")))
    });
    let error = error.expect_err("it cannot be driven");
    assert!(
        matches!(error, ConfigurationError::Runtime { .. }),
        "{error}"
    );
    assert_eq!(members.config().len(), 1);
}

#[test]
fn a_deadline_holds_though_nobody_drives_the_connections() {
    let undriven = Builder::new_current_thread().enable_all().build();
    let undriven = undriven.expect("a runtime");
    let nodes = undriven.block_on(async {
        let nodes = Configuration::builder().nodes(["127.0.0.1:9"]).connect();
        nodes.expect("legal")
    });
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = Client::new(&nodes);
        let limit = Duration::from_millis(50);
        let call = client.rpc::<_, Number>(&nodes[0], ECHO, number(1));
        let error = within(call.timeout(limit).send()).await;
        let error = error.expect_err("nobody sends it");
        assert_eq!(error.status().code(), Code::DeadlineExceeded, "{error}");
        assert_eq!(error.outcome(), Outcome::NotSent);
        let call = client.quorum_call::<_, Number>(ECHO, number(1));
        let error = within(call.timeout(limit).majority()).await;
        let error = error.expect_err("nobody sends it");
        assert_eq!(error.kind(), gorums::QuorumErrorKind::Deadline, "{error}");
        let sent = client.multicast(ECHO, number(1)).timeout(limit);
        let error = within(sent.send()).await.expect_err("nobody sends it");
        assert_eq!(error.kind(), gorums::QuorumErrorKind::Deadline, "{error}");
        let call = client.streamed_quorum_call::<_, Number>(ECHO, number(1));
        let mut responses = call.timeout(limit).responses();
        let response = within(responses.next()).await.expect("one node");
        let error = response.into_result().expect_err("nobody sends it");
        assert_eq!(error.status().code(), Code::DeadlineExceeded, "{error}");
        assert!(within(responses.next()).await.is_none());
        let call = client.streamed_quorum_call::<_, Number>(ECHO, number(1));
        let error = within(call.timeout(limit).correctable(1).done()).await;
        let error = error.expect_err("nobody sends it");
        assert_eq!(error.kind(), gorums::QuorumErrorKind::Deadline, "{error}");
    });
}
