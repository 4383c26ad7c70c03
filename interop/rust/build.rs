//! Generates the service that all sides implement.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    gorums_build::configure().compile_protos(&["../proto/interop.proto"], &["../proto"])?;
    Ok(())
}
