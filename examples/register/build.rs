//! Generates the messages, the client and the server trait of the register service, and its descriptors,
//! by which `register call` reads and writes messages as JSON.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    gorums_build::configure()
        .file_descriptor_set_path(Path::new(&out).join("descriptors.bin"))
        .compile_protos(&["proto/register.proto"], &["proto"])?;
    Ok(())
}
