//! Generates the messages, the clients and the server traits of what the nodes ask each other.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    gorums_build::compile_protos("proto/maelstrom.proto")?;
    Ok(())
}
