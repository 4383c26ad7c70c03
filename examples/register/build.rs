//! Generates the messages, the client and the server trait of the register.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    gorums_build::compile_protos("proto/register.proto")?;
    Ok(())
}
