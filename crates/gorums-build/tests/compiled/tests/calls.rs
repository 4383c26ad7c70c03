//! Generated clients call generated servers.

use gorums::server::Service;
use gorums::{Code, Configuration, NodeError, Server, ServerCtx, Status};
use gorums_build_compiled::all::acme::common::{Key, key};
use gorums_build_compiled::all::acme::store::v1::{Entry, entry, store_client, store_server};
use gorums_build_compiled::all::cluster::{
    Member, election_client, election_server, membership_client, membership_server,
};
use gorums_build_compiled::clock::{clock_client, clock_server};

struct Cluster;

impl membership_server::Membership for Cluster {
    async fn join(&self, _ctx: ServerCtx, mut member: Member) -> Result<Member, Status> {
        member.address.insert_str(0, "joined ");
        Ok(member)
    }
}

impl election_server::Election for Cluster {
    async fn vote(&self, ctx: ServerCtx, member: Member) -> Result<Member, Status> {
        assert_eq!(ctx.method(), "cluster.Election.Vote");
        Ok(member)
    }
}

struct Store;

impl store_server::Store for Store {
    async fn get(&self, _ctx: ServerCtx, key: Key) -> Result<key::Version, Status> {
        Ok(key::Version {
            number: key.name.len() as u64,
        })
    }

    async fn put(&self, _ctx: ServerCtx, entry: Entry) -> Result<entry::Receipt, Status> {
        Ok(entry::Receipt {
            number: entry.value.map(|value| value.len() as u64),
        })
    }
}

struct Clock;

impl clock_server::Clock for Clock {
    async fn now(&self, _ctx: ServerCtx, (): ()) -> Result<prost_types::Timestamp, Status> {
        Ok(prost_types::Timestamp {
            seconds: 7,
            nanos: 0,
        })
    }
}

async fn serve() -> Configuration {
    let cluster = std::sync::Arc::new(Cluster);
    let server = Server::builder()
        .add_service(membership_server::MembershipServer::from_arc(
            cluster.clone(),
        ))
        .add_service(election_server::ElectionServer::from_arc(cluster))
        .add_service(store_server::StoreServer::new(Store).max_decoding_message_size(1000))
        .add_service(clock_server::ClockServer::new(Clock))
        .bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = server.local_addr().to_string();
    tokio::spawn(server.serve());
    Configuration::builder()
        .nodes([address])
        .connect()
        .expect("a legal address")
}

#[tokio::test]
async fn several_services_share_a_server_and_a_configuration() {
    let all = serve().await;
    let member = |address: &str| Member {
        address: address.to_owned(),
    };
    let membership = membership_client::MembershipClient::new(&all);
    let joined = membership.join(&all[0], member("a")).await.expect("up");
    assert_eq!(joined.address, "joined a");
    let election = election_client::ElectionClient::new(&all[0]);
    let voted = election.vote(member("b")).majority().await.expect("up");
    assert_eq!(voted.address, "b");
    assert_eq!(election_server::SERVICE_NAME, "cluster.Election");
    let server = store_server::StoreServer::new(Store);
    assert_eq!(server.clone().name(), "acme.store.v1.Store");
}

#[tokio::test]
async fn nested_packages_and_imported_messages_work() {
    let all = serve().await;
    let store = store_client::StoreClient::new(&all);
    let key = Key {
        name: "four".to_owned(),
    };
    assert_eq!(store.get(key.clone()).all().await.expect("up").number, 4);
    let entry = |len| Entry {
        key: key.clone(),
        value: Some(vec![0; len]),
    };
    let receipt = store.put(&all[0], entry(3)).await.expect("up");
    assert_eq!(receipt.number, Some(3));
    let error: NodeError = store
        .put(&all[0], entry(1000))
        .await
        .expect_err("too large");
    assert_eq!(error.code(), Code::ResourceExhausted);
    let client = store.with_max_encoding_message_size(10);
    let error = client.put(&all[0], entry(10)).await.expect_err("too large");
    assert_eq!(error.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn well_known_types_work_and_default_stubs_answer() {
    let all = serve().await;
    let clock = clock_client::ClockClient::new(&all);
    assert_eq!(clock.now(()).all().await.expect("up").seconds, 7);
    let error = clock
        .name(&all[0], "x".to_owned())
        .await
        .expect_err("a stub");
    assert_eq!(error.code(), Code::Unimplemented);
    let mut ticks = clock.ticks(()).responses();
    let tick = ticks.next().await.expect("an answer");
    assert_eq!(
        tick.into_result().expect_err("a stub").code(),
        Code::Unimplemented
    );
    assert!(ticks.next().await.is_none());
    clock.reset(()).await.expect("handed over");
}

#[tokio::test]
async fn a_client_sets_defaults_for_each_method_once() {
    let all = serve().await;
    let store = store_client::StoreClient::new(&all)
        .with_get_defaults(|call| {
            call.with_quorum_fn(|key, replies| {
                let (_, version) = replies.latest()?;
                Some(key::Version {
                    number: version.number * 10 + key.name.len() as u64,
                })
            })
        })
        .with_put_defaults(|call| call.timeout(std::time::Duration::ZERO));
    let key = Key {
        name: "four".to_owned(),
    };
    // The client made from it has them too.
    for store in [&store, &store.on(&all[0])] {
        let found = store.get(key.clone()).by_quorum_fn().await.expect("up");
        assert_eq!(found.number, 44);
    }
    let entry = Entry {
        key,
        value: Some(vec![0; 3]),
    };
    let error = store
        .put(&all[0], entry.clone())
        .await
        .expect_err("no time");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    // The call has the last word.
    let long = std::time::Duration::from_secs(3600);
    let receipt = store.put(&all[0], entry).timeout(long).await.expect("up");
    assert_eq!(receipt.number, Some(3));
}
