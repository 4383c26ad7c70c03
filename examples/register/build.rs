//! Generates the messages, the client and the server trait of the register.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    gorums_build::configure()
        .extern_path(".rejoin", "::storage::rejoin::proto")
        .compile_protos(&["proto/register.proto"], &["proto", "../storage/proto"])?;
    Ok(())
}
