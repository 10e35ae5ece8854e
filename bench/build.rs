//! The service as tonic generates it for everybody: what the naive peers serve. Messages are those of `pulse-proto`.

use std::error::Error;

const PROTO: &str = "pulse/control/v1/control.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../proto/{PROTO}");
    println!("cargo::rerun-if-changed=build.rs");
    let descriptors = protox::Compiler::new(["../proto"])?
        .include_imports(true)
        .include_source_info(true)
        .open_file(PROTO)?
        .file_descriptor_set();
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .extern_path(".pulse.control.v1", "::pulse_proto::v1")
        .compile_fds(descriptors)?;
    Ok(())
}
