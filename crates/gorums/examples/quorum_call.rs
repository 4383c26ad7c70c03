//! Three replicas in one process, and quorum calls that survive the loss of one of them. There is
//! no generated code here: messages are what `prost` has for strings.
//!
//! ```console
//! $ cargo run -p gorums --example quorum_call
//! ```

use gorums::{Client, Configuration, Server, ServerCtx, Status};

const GREET: &str = "demo.Greeter.Greet";

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut addresses = Vec::new();
    let mut replicas = Vec::new();
    for id in 1..=3 {
        let handler = move |_ctx: ServerCtx, name: String| async move {
            Ok::<_, Status>(format!("Hello {name}, this is replica {id}."))
        };
        let builder = Server::builder().unary(GREET, handler);
        let server = builder.bind("127.0.0.1:0").await?;
        addresses.push(server.local_addr().to_string());
        replicas.push(tokio::spawn(server.serve()));
    }
    let configuration = Configuration::builder().nodes(addresses).connect()?;
    let client = Client::new(&configuration);
    let greet = |name: &str| client.quorum_call::<String, String>(GREET, name.to_owned());

    // The call goes to every replica. `all` waits for all of them.
    let replies = greet("Ada").all().replies().await?;
    println!("All {} replicas have answered:", replies.len());
    for (node, greeting) in replies.iter() {
        println!("  Node {node} says: {greeting}");
    }

    let replica = replicas.remove(2);
    replica.abort();
    let _ = replica.await;
    println!("Replica 3 has been stopped.");

    // `majority` is content with the two that are left.
    let replies = greet("Grace").majority().replies().await?;
    println!("{} replicas, a majority, have answered:", replies.len());
    for (node, greeting) in replies.iter() {
        println!("  Node {node} says: {greeting}");
    }

    // A call that wants all three fails as soon as that is out of reach, and says why.
    match greet("Edsger").all().replies().await {
        Ok(replies) => return Err(format!("{} replicas have answered", replies.len()).into()),
        Err(error) => println!("A call to all three has failed:\n  {error}"),
    }
    Ok(())
}
