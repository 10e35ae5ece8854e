//! Turns `proto/` into Rust with protox: no protoc on the machine, no generated code in the tree.
//!
//! Messages and client are generated as usual. The server is generated from the same descriptors, but its
//! streaming method yields `Encoded` messages, so that a list is encoded once and shared by all streams.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;
use prost_types::{FileDescriptorSet, ServiceDescriptorProto};
use tonic_build::manual;

const PROTO: &str = "pulse/control/v1/control.proto";
const PACKAGE: &str = "pulse.control.v1";
/// Messages whose `Debug` is written by hand, in `proto/veiled.rs`, because it would show a secret.
const HOLD_SECRETS: [&str; 2] = ["RegisterResponse", "RotateTokenResponse"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/{PROTO}");
    println!("cargo::rerun-if-changed=build.rs");

    let descriptors = protox::Compiler::new(["proto"])?
        .include_imports(true)
        .include_source_info(true)
        .open_file(PROTO)?
        .file_descriptor_set();
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    let services: Vec<manual::Service> = services(&descriptors).map(server).collect();
    // The connection is made by the proxy's own connector, so the client needs no `connect` of tonic's.
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .skip_debug(HOLD_SECRETS.map(|message| format!(".{PACKAGE}.{message}")))
        .compile_fds(descriptors)?;
    manual::Builder::new().build_client(false).build_transport(false).compile(&services);
    Ok(())
}

fn services(descriptors: &FileDescriptorSet) -> impl Iterator<Item = &ServiceDescriptorProto> {
    descriptors.file.iter().filter(|file| file.package() == PACKAGE).flat_map(|file| &file.service)
}

/// Describes the server of one service to tonic's generator.
fn server(service: &ServiceDescriptorProto) -> manual::Service {
    let mut builder = manual::Service::builder().name(service.name()).package(PACKAGE);
    for method in &service.method {
        let mut described = manual::Method::builder()
            .name(snake_case(method.name()))
            .route_name(method.name())
            .input_type(message_path(method.input_type()));
        described = if method.server_streaming() {
            described
                .output_type(format!("crate::encoded::Encoded<{}>", message_path(method.output_type())))
                .codec_path("crate::encoded::EncodedCodec")
                .server_streaming()
        } else {
            described.output_type(message_path(method.output_type())).codec_path("crate::codec::RequestCodec")
        };
        builder = builder.method(described.build());
    }
    builder.build()
}

fn message_path(proto_type: &str) -> String {
    format!("crate::v1::{}", proto_type.rsplit('.').next().unwrap_or(proto_type))
}

fn snake_case(camel: &str) -> String {
    let mut snake = String::with_capacity(camel.len() + 4);
    for (at, letter) in camel.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
