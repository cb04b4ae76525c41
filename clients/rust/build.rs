//! Generates the clients from the protos that `contextworker protos protos --client` wrote.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=protos");
    let files = [
        "contextunity/code/v1/code.proto",
        "contextunity/core/context_unit.proto",
        "contextunity/harvest/v1/harvest.proto",
        "contextunity/worker/code.proto",
        "contextunity/worker/schedules.proto",
        "contextunity/worker/tasks.proto",
        "contextunity/worker/worker.proto",
    ];
    let descriptors = protox::compile(files, ["protos"])?;
    let mut config = tonic_prost_build::Config::new();
    // An Any says which message is in it by the message's name.
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_server(false)
        .include_file("protos.rs")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
