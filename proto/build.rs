//! Compiles the contracts with protox, so that no protoc is needed.

use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

const FILES: [&str; 10] = [
    "liaison/message/v1/category.proto",
    "liaison/message/v1/content.proto",
    "liaison/message/v1/manifest.proto",
    "liaison/message/v1/envelope.proto",
    "liaison/message/v1/decision.proto",
    "liaison/log/v1/log.proto",
    "liaison/exchange/v1/exchange.proto",
    "liaison/federation/v1/federation.proto",
    "liaison/case/v1/case.proto",
    "liaison/admin/v1/admin.proto",
];

/// The file whose messages hold what people wrote about people.
const CONTENT: &str = "liaison/message/v1/content.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=liaison");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    // Written as protox encodes it: prost's own types would drop the custom options.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let descriptors = compiler.file_descriptor_set();
    let content: Vec<String> = descriptors
        .file
        .iter()
        .filter(|file| file.name() == CONTENT)
        .flat_map(|file| &file.message_type)
        .filter(|message| message.enum_type.is_empty())
        .map(|message| message.name().to_owned())
        .collect();
    fs::write(out.join("content_debug.rs"), content_debug(&content)?)?;

    let mut config = prost_build::Config::new();
    config
        .enable_type_names()
        .bytes(["."])
        .skip_debug(content.iter().map(|name| format!(".liaison.message.v1.{name}")));
    tonic_prost_build::configure()
        .include_file("packages.rs")
        .codec_path("crate::codec::Codec")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

/// `Debug` that names a content message and none of its words, so that no log line, error or panic
/// can hold a section.
fn content_debug(messages: &[String]) -> Result<String, std::fmt::Error> {
    let mut code = String::new();
    for name in messages {
        writeln!(
            code,
            "impl ::core::fmt::Debug for message::v1::{name} {{\n    \
             fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{\n        \
             f.write_str(\"{name}(..)\")\n    }}\n}}"
        )?;
    }
    Ok(code)
}
