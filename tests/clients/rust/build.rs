//! Has `protoc`, or the one that PROTOC names, generate the client.

fn main() -> std::io::Result<()> {
    let files = ["proto/ingle/v1/guest.proto", "proto/ingle/v1/vm.proto"];
    tonic_prost_build::configure().build_server(false).compile_protos(&files, &["proto"])
}
