fn main() -> Result<(), Box<dyn std::error::Error>> {
    gorums_build::compile_protos("proto/claims.proto")?;
    Ok(())
}
