//! Compiles the protos, without `protoc`.
//!
//! The server side of `tao.v1` is generated a second time, with every answer mapped to `Answer` (src/answer.rs): followers put
//! answers together from bytes that caches hold encoded.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let files = ["tao/v1/service.proto", "tao/internal/v1/tier.proto"].map(|f| root.join(f));
    let descriptors = protox::compile(files, [&root])?;

    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut builder = tonic_prost_build::configure().build_server(true).bytes(".").btree_map(".");
    // A call of a pipeline is moved some times on its way: reads are small, and the others are kept apart.
    for call in [
        "object_add",
        "object_update",
        "object_upsert",
        "object_delete",
        "assoc_add",
        "assoc_delete",
        "assoc_change_type",
        "write_batch",
        "batch",
        "allocate_ids",
    ] {
        builder = builder.boxed(format!(".tao.v1.PipelineCall.call.{call}"));
    }
    builder.compile_fds(descriptors.clone())?;

    let server = out.join("server");
    std::fs::create_dir_all(&server)?;
    let mut public = descriptors;
    public.file.retain(|f| f.package() != "tao.internal.v1");
    let mut builder = tonic_prost_build::configure()
        .out_dir(&server)
        .build_client(false)
        .codec_path("crate::codec::Codec")
        .extern_path(".tao.v1", "crate::v1");
    let methods = public.file.iter().flat_map(|f| &f.service).flat_map(|s| &s.method);
    let answers: BTreeSet<String> = methods.map(|m| m.output_type().to_owned()).collect();
    for answer in answers {
        builder = builder.extern_path(answer, "crate::answer::Answer");
    }
    builder.compile_fds(public)?;
    Ok(())
}
