//! Generates code from the fixtures, as a user would.

fn main() -> Result<(), gorums_build::Error> {
    let proto = "../proto";
    gorums_build::configure()
        .include_file("all.rs")
        .compile_protos(
            &[
                "storage.proto",
                "services.proto",
                "nested/store.proto",
                "comments.proto",
                "names.proto",
                "idempotent.proto",
            ],
            &[proto],
        )?;
    gorums_build::configure()
        .generate_default_stubs(true)
        .compile_protos(&["well_known.proto", "keyword_package.proto"], &[proto])
}
