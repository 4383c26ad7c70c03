//! Generates the messages, the clients and the server traits of the storage service, and of the one
//! by which replicas get lost data again.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rejoin = ["proto/standing.proto", "proto/rejoin.proto"];
    gorums_build::configure().compile_protos(&rejoin, &["proto"])?;
    gorums_build::configure()
        .extern_path(".rejoin", "crate::rejoin::proto")
        .compile_protos(&["proto/storage.proto"], &["proto"])?;
    Ok(())
}
