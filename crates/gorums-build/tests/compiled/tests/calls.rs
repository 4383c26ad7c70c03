//! Generated clients call generated servers.

use std::sync::Arc;
use std::time::Duration;

use gorums::server::Service;
use gorums::{Code, Configuration, NodeError, Outcome, ReplySender, Server, ServerCtx, Status};
use gorums_build_compiled::all::acme::common::{Key, key};
use gorums_build_compiled::all::acme::store::v1::{Entry, entry, store_client, store_server};
use gorums_build_compiled::all::cluster::{
    Member, election_client, election_server, membership_client, membership_server,
};
use gorums_build_compiled::all::ledger::{Account, ledger_client, ledger_server};
use gorums_build_compiled::clock::{clock_client, clock_server};
use tokio::sync::watch;
use tokio::task::JoinHandle;

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

/// Answers nothing until it is whole, and counts what it is asked.
#[derive(Clone)]
struct Ledger {
    is_whole: bool,
    asked: Arc<watch::Sender<u32>>,
}

impl Ledger {
    async fn answer(&self, account: Account) -> Result<Account, Status> {
        self.asked.send_modify(|asked| *asked += 1);
        if self.is_whole {
            return Ok(account);
        }
        std::future::pending().await
    }

    async fn serve(self, address: &str) -> (String, JoinHandle<()>) {
        let server = Server::builder()
            .add_service(ledger_server::LedgerServer::new(self))
            .bind(address);
        let server = server.await.expect("a free port");
        let address = server.local_addr().to_string();
        (address, tokio::spawn(server.serve()))
    }
}

impl ledger_server::Ledger for Ledger {
    async fn balance(&self, ctx: ServerCtx, account: Account) -> Result<Account, Status> {
        ctx.release();
        self.answer(account).await
    }

    async fn deposit(&self, ctx: ServerCtx, account: Account) -> Result<Account, Status> {
        ctx.release();
        self.answer(account).await
    }

    async fn set(&self, ctx: ServerCtx, account: Account) -> Result<Account, Status> {
        ctx.release();
        self.answer(account).await
    }

    async fn follow(
        &self,
        ctx: ServerCtx,
        account: Account,
        replies: ReplySender<Account>,
    ) -> Result<(), Status> {
        ctx.release();
        let account = self.answer(account).await?;
        replies
            .send(account)
            .await
            .map_err(|_| Status::aborted("nobody reads on"))
    }

    async fn note(&self, _ctx: ServerCtx, _account: Account) {}

    async fn tell(&self, _ctx: ServerCtx, _account: Account) {}
}

#[tokio::test]
async fn calls_of_methods_that_say_that_they_are_idempotent_outlive_a_server() {
    let asked = Arc::new(watch::Sender::new(0));
    let mut ledger = Ledger {
        is_whole: false,
        asked: Arc::clone(&asked),
    };
    let (address, serving) = ledger.clone().serve("127.0.0.1:0").await;
    let all = Configuration::builder()
        .nodes([address.clone()])
        .connect()
        .expect("a legal address");
    let client = ledger_client::LedgerClient::new(&all).with_timeout(Duration::from_secs(60));
    let account = || Account {
        name: "a".to_owned(),
        amount: 1,
    };
    let balance = client.balance(&all[0], account()).send();
    let deposit = client.deposit(&all[0], account()).send();
    let set = client.set(account()).all();
    let mut follow = client.follow(account()).responses();
    let careful = client
        .clone()
        .with_balance_defaults(|call| call.idempotent(false));
    let taken_back = careful.balance(&all[0], account()).send();
    let mut count = asked.subscribe();
    count
        .wait_for(|asked| *asked == 5)
        .await
        .expect("it is here");
    serving.abort();
    let _ = serving.await;
    for once in [deposit, taken_back] {
        let error = once.await.expect_err("it may have been done");
        assert_eq!(error.outcome(), Outcome::Unknown);
    }
    ledger.is_whole = true;
    let (_address, _serving) = ledger.serve(&address).await;
    assert_eq!(balance.await.expect("sent again"), account());
    assert_eq!(set.await.expect("sent again"), account());
    let reply = follow.next().await.expect("a reply").into_result();
    assert_eq!(reply.expect("sent again"), account());
    assert_eq!(*asked.borrow(), 5 + 3);
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
