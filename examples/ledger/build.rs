//! Generates the messages, the client and the server trait of the ledger.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    gorums_build::configure().compile_protos(&["proto/ledger.proto"], &["proto"])?;
    Ok(())
}
