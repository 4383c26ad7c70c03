//! Generates the messages, the client and the server trait of the storage service.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    gorums_build::compile_protos("proto/storage.proto")?;
    Ok(())
}
