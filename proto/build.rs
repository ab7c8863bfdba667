//! Generates the wire types; protox reads the .proto files, so no protoc is needed.

use std::path::PathBuf;

/// `TYPE_BYTES` of a field descriptor.
const BYTES: i32 = 12;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["discovery", "ext_authz", "isthmus", "load", "otlp"].map(|name| format!("proto/{name}.proto"));
    let files = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().btree_map(".").compile_fds(files)?;

    // The same on the wire, but that resources are encoded already: a server encodes each once, however many it is sent to.
    let mut encoded = protox::compile(["proto/discovery.proto"], ["proto"])?;
    let messages = encoded.file.iter_mut().flat_map(|file| &mut file.message_type);
    let fields = messages.filter(|message| message.name() == "DeltaDiscoveryResponse").flat_map(|message| &mut message.field);
    for field in fields.filter(|field| field.name() == "resources") {
        field.r#type = Some(BYTES);
        field.type_name = None;
    }
    let folder = PathBuf::from(std::env::var("OUT_DIR")?).join("encoded");
    std::fs::create_dir_all(&folder)?;
    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".")
        .build_client(false)
        .build_server(false)
        .out_dir(folder)
        .compile_fds(encoded)?;
    Ok(())
}
