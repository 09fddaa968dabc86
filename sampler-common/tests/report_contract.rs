//! The code that is committed is what prost makes of `report.proto` today.

use std::fs;
use std::path::Path;

use prost_build::Module;
use protox::Compiler;

#[test]
fn the_committed_code_is_made_of_the_contract() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report");
    let mut compiler = Compiler::new([&dir]).unwrap();
    compiler.include_source_info(true).open_file("report.proto").unwrap();
    let files = compiler.file_descriptor_set().file;
    let module = Module::from_protobuf_package_name(files[0].package());
    let requests = files.into_iter().map(|file| (module.clone(), file)).collect();
    let mut config = prost_build::Config::new();
    // So that a message of many empty containers takes little memory.
    config.boxed("Container.window");
    let made = config.generate(requests).unwrap().remove(&module).unwrap();
    let committed = dir.join("wire.rs");
    let made = format!("//! Made of `report.proto` by `tests/report_contract.rs`: do not edit.\n\n{made}");
    if fs::read_to_string(&committed).unwrap_or_default() != made {
        fs::write(&committed, made).unwrap();
        panic!("{} was not made of report.proto and has been written anew: commit it", committed.display());
    }
}
