//! Generates the service that all sides implement, and the store's.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = "../../examples/storage/proto";
    gorums_build::configure().compile_protos(
        &["../proto/interop.proto", &format!("{store}/storage.proto")],
        &["../proto", store],
    )?;
    Ok(())
}
